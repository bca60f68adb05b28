"""`hf://` against the lab's hub, as huggingface_hub sees it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aim_downloader.retry import Limits
from aimlab.sources.hub import CUT, STALLED, Fault, File, Hub, InjectedError, Model

if TYPE_CHECKING:
    from conftest import Aim

CONFIG = b'{"model_type": "tiny"}'
WEIGHTS = os.urandom(300_000)
SMALL = Limits(range_bytes=64 * 1024, write_bytes=16 * 1024, backoff_s=0.01)
ALL = ["fetch", "hf://org/model"]
FILES = {"config.json": CONFIG, "onnx/weights.bin": WEIGHTS, "empty.txt": b""}


@pytest.fixture
def model(hub: Hub, aim: Aim) -> Model:
    aim.env = {"HF_ENDPOINT": hub.endpoint}
    return hub.put_model("org/model", FILES)


def weights(model: Model) -> File:
    return model.files["onnx/weights.bin"]


async def test_a_model_is_fetched_checked_and_recorded(
    model: Model, aim: Aim, tmp_path: Path
) -> None:
    dest, umask = tmp_path / "cache", os.umask(0o077)
    try:
        done = await aim(*ALL, str(dest))
    finally:
        os.umask(umask)
    assert (done.exit_code, done.result["outcome"], done.result["bytes"], done.result["files"]) == (
        0,
        "done",
        300_022,
        3,
    )
    assert {path: (dest / path).read_bytes() for path in FILES} == FILES
    manifest = json.loads((dest / ".aim-manifest.json").read_bytes())
    assert (manifest["uri"], manifest["revision"]) == ("hf://org/model", model.head)
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == {
        path: hashlib.sha256(c).hexdigest() for path, c in FILES.items()
    }
    modes = {
        str(path.relative_to(dest)): stat.S_IMODE(path.stat().st_mode) for path in dest.rglob("*")
    }
    assert modes == {
        ".aim-manifest.json": 0o644,
        "config.json": 0o644,
        "empty.txt": 0o644,
        "onnx": 0o755,
        "onnx/weights.bin": 0o644,
    }


async def test_lines_are_progress_and_then_the_result(
    model: Model, aim: Aim, tmp_path: Path
) -> None:
    done = await aim(*ALL, str(tmp_path / "cache"))
    first, *_, last, result = done.lines
    assert (first["event"], first["phase"], first["bytes"], first["total"], first["files"]) == (
        "progress",
        "downloading",
        0,
        300_022,
        3,
    )
    assert (last["event"], last["bytes"], last["files_done"], last["seconds_left"]) == (
        "progress",
        300_022,
        3,
        0.0,
    )
    assert result["event"] == "result"
    assert json.loads(done.termination) == result


async def test_a_second_run_only_asks_for_the_revision(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path
) -> None:
    await aim(*ALL, str(tmp_path / "cache"))
    hub.requests.clear()
    again = await aim(*ALL, str(tmp_path / "cache"))
    assert (again.exit_code, again.message) == (0, "this revision is already complete")
    assert hub.requests == ["/api/models/org/model"]


async def test_a_new_revision_fetches_changes_and_removes_old_files(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path
) -> None:
    dest = tmp_path / "cache"
    await aim(*ALL, str(dest))
    (dest / "notes.txt").write_text("not ours")
    hub.put_model("org/model", {"config.json": b"{}", "empty.txt": b""})
    hub.requests.clear()
    done = await aim(*ALL, str(dest))
    assert (done.exit_code, done.result["revision"]) == (0, model.head)
    assert hub.requests == [
        "/api/models/org/model",
        f"/org/model/resolve/{model.head}/config.json bytes=0-1",
    ]
    assert sorted(str(path.relative_to(dest)) for path in dest.rglob("*")) == [
        ".aim-manifest.json",
        "config.json",
        "empty.txt",
        "notes.txt",
    ]


async def test_ranges_share_a_signed_address_that_gets_no_token(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path
) -> None:
    hub.restrict("org/model", private=True, readers=["hf_secret"])
    aim.env["HF_TOKEN"] = "hf_secret"
    done = await aim(
        "fetch",
        f"hf://org/model@{model.head}",
        str(tmp_path / "cache"),
        limits=replace(SMALL, ranges_in_flight=1),
    )
    assert done.exit_code == 0
    assert sum(requested.startswith("/blobs/") for requested in hub.requests) == 5
    assert (
        len(
            [
                requested
                for requested in hub.requests
                if "/resolve/" in requested and "weights" in requested
            ]
        )
        == 1
    )
    assert "hf_secret" not in json.dumps(done.lines)


async def test_size_counts_without_fetching(model: Model, hub: Hub, aim: Aim) -> None:
    done = await aim("size", "hf://org/model")
    assert (done.exit_code, done.result["bytes"], done.result["files"]) == (0, 300_022, 3)
    assert hub.requests == ["/api/models/org/model"]


@pytest.mark.parametrize("revision", ["v1", "dev"])
async def test_a_tag_or_branch_is_pinned_to_its_commit_first(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path, revision: str
) -> None:
    hub.put_model("org/model", {"config.json": b"{}"}, branch="dev", tags=["v1"])
    done = await aim("fetch", f"hf://org/model@{revision}", str(tmp_path / "cache"))
    assert (done.exit_code, done.result["revision"]) == (0, model.branches["dev"])
    assert hub.requests == [
        f"/api/models/org/model/revision/{revision}",
        f"/org/model/resolve/{model.branches['dev']}/config.json bytes=0-1",
    ]


async def test_a_renamed_model_is_found_under_its_old_name(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path
) -> None:
    hub.restrict("org/model", private=True, readers=["hf_secret"])
    hub.rename("org/model", "org/renamed")
    aim.env["HF_TOKEN"] = "hf_secret"
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["revision"]) == (0, model.head)
    assert (tmp_path / "cache" / "onnx/weights.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("injected_error", "uri", "ends"),
    [
        pytest.param(
            InjectedError(403, "GatedRepo"),
            "hf://org/model",
            (11, "accept its terms at"),
            id="gated-already-in-the-listing",
        ),
        pytest.param(
            InjectedError(401),
            "hf://org/model",
            (11, "set credentials.huggingFaceToken"),
            id="private-or-missing-without-a-token",
        ),
        pytest.param(
            InjectedError(403),
            "hf://org/model",
            (11, "may not read org/model"),
            id="token-without-the-right",
        ),
        pytest.param(
            InjectedError(403, message="Access to this resource is disabled."),
            "hf://org/model",
            (11, "disabled access"),
            id="disabled",
        ),
        pytest.param(None, "hf://org/model@v9", (10, "no revision 'v9'"), id="no-such-revision"),
        pytest.param(
            InjectedError(400),
            "hf://org/model",
            (10, "does not accept"),
            id="not-a-name-to-the-hub",
        ),
    ],
)
async def test_rejections_end_the_run(
    model: Model,
    aim: Aim,
    tmp_path: Path,
    injected_error: InjectedError | None,
    uri: str,
    ends: tuple[int, str],
) -> None:
    model.errors = [injected_error] if injected_error else []
    done = await aim("fetch", uri, str(tmp_path / "cache"))
    assert done.exit_code == ends[0]
    assert ends[1] in done.message


@pytest.mark.parametrize(
    ("restrict", "token", "problem"),
    [
        pytest.param(
            {"gated": True},
            "",
            ("hf://org/model", 11, "and set a token in credentials.huggingFaceToken"),
            id="gated-without-a-token",
        ),
        pytest.param(
            {"gated": True},
            "hf_other",
            ("hf://org/model", 11, "with the account of the token"),
            id="gated-and-not-accepted",
        ),
        pytest.param(
            {"private": True},
            "",
            ("hf://org/model", 11, "for a private one set"),
            id="private-without-a-token",
        ),
        pytest.param(
            {"private": True},
            "hf_other",
            ("hf://org/model", 10, "that the token in"),
            id="private-of-another-user",
        ),
        pytest.param(
            {},
            "hf_unknown",
            ("hf://org/model", 11, "rejects the token"),
            id="unknown-token",
        ),
        pytest.param(
            {},
            "",
            ("hf://org/other", 11, "is private or does not exist"),
            id="no-such-repository-without-a-token",
        ),
        pytest.param(
            {}, "hf_other", ("hf://org/other", 10, "has no org/other"), id="no-such-repository"
        ),
        pytest.param(
            {"gated": True},
            "hf_reader",
            ("hf://org/model", 0, "fetched 3 of 3"),
            id="gated-and-accepted",
        ),
        pytest.param(
            {"private": True},
            "hf_reader",
            ("hf://org/model", 0, "fetched 3 of 3"),
            id="private-and-ours",
        ),
    ],
)
@pytest.mark.usefixtures("model")
async def test_who_may_read_what(
    hub: Hub,
    aim: Aim,
    tmp_path: Path,
    restrict: dict[str, bool],
    token: str,
    problem: tuple[str, int, str],
) -> None:
    uri, code, text = problem
    hub.restrict("org/model", readers=["hf_reader"], **restrict)
    hub.tokens.add("hf_other")
    aim.env["HF_TOKEN"] = token
    done = await aim("fetch", uri, str(tmp_path / "cache"))
    assert done.exit_code == code
    assert text in done.message
    assert not token or token not in json.dumps(done.lines) + done.termination


async def test_a_retry_after_is_not_a_failure(model: Model, aim: Aim, tmp_path: Path) -> None:
    model.errors = [InjectedError(429, retry_after_s=0), InjectedError(503), InjectedError(502)]
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, model.errors) == (0, [])


async def test_a_hub_that_only_answers_wait_is_worth_another_run(
    model: Model, aim: Aim, tmp_path: Path
) -> None:
    model.errors = [InjectedError(429)] * 5
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, done.message) == (20, "gave up after 5 tries: HTTP 429 from the hub")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(replace(STALLED, after_bytes=10_000), id="no-byte-comes-any-more"),
        pytest.param(replace(CUT, after_bytes=10_000), id="connection-cut"),
        pytest.param(CUT, id="connection-cut-before-a-byte"),
        pytest.param(Fault(after_bytes=10_000, pause_s=0.1), id="slow"),
    ],
)
async def test_an_answer_that_stops_costs_a_range_another_try(
    model: Model, aim: Aim, tmp_path: Path, fault: Fault
) -> None:
    model.faults = [fault] * 3
    done = await aim(*ALL, str(tmp_path / "cache"), limits=replace(SMALL, stall_s=0.5))
    assert (done.exit_code, model.faults) == (0, [])
    assert (tmp_path / "cache" / "onnx/weights.bin").read_bytes() == WEIGHTS


async def test_content_with_a_wrong_digest_is_fetched_twice_then_fails(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path
) -> None:
    weights(model).sha256 = "0" * 64
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["outcome"]) == (13, "checksum")
    assert "onnx/weights.bin" in done.message
    assert sum(requested.startswith("/blobs/") for requested in hub.requests) == 10
    assert not (tmp_path / "cache" / "onnx" / "weights.bin").exists()
    assert not (tmp_path / "cache" / ".aim-manifest.json").exists()


async def test_files_that_a_failed_run_placed_are_not_fetched_twice(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path
) -> None:
    right, weights(model).sha256 = weights(model).sha256, "0" * 64
    await aim(*ALL, str(tmp_path / "cache"))
    weights(model).sha256 = right
    hub.requests.clear()
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert done.exit_code == 0
    assert not any("config.json" in requested for requested in hub.requests)


async def test_too_little_space_fails_before_a_byte_is_fetched(
    model: Model, hub: Hub, aim: Aim, tmp_path: Path
) -> None:
    done = await aim(*ALL, str(tmp_path / "cache"), free_bytes=lambda _: 300_000)
    assert (done.exit_code, done.result["needed_bytes"], done.result["free_bytes"]) == (
        12,
        300_022,
        300_000,
    )
    assert hub.requests == ["/api/models/org/model"]


async def test_a_hub_that_is_away_is_worth_another_run(aim: Aim, tmp_path: Path) -> None:
    aim.env = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert (await aim(*ALL, str(tmp_path / "cache"))).exit_code == 20


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "a//b", "./a"])
async def test_a_key_that_would_leave_dest_is_rejected(
    model: Model, aim: Aim, tmp_path: Path, key: str
) -> None:
    model.files[key] = File.of(key, b"evil")
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert done.exit_code == 10
    assert repr(key) in done.message
    assert not (tmp_path / "cache").exists()
