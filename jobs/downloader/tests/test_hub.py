"""`hf://` against a small hub that huggingface_hub accepts."""

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

if TYPE_CHECKING:
    from conftest import Aim, Hub

CONFIG = b'{"model_type": "tiny"}'
WEIGHTS = os.urandom(300_000)
SMALL = Limits(range_bytes=64 * 1024, write_bytes=16 * 1024, backoff_s=0.01)
ALL = ["fetch", "hf://org/model"]


@pytest.fixture
def model(hub: Hub, aim: Aim) -> Hub:
    hub.files = {"config.json": CONFIG, "onnx/weights.bin": WEIGHTS, "empty.txt": b""}
    hub.large = {"onnx/weights.bin"}
    aim.env = {"HF_ENDPOINT": hub.endpoint}
    return hub


async def test_a_model_is_fetched_checked_and_recorded(model: Hub, aim: Aim, tmp_path: Path) -> None:
    dest, umask = tmp_path / "cache", os.umask(0o077)
    try:
        done = await aim(*ALL, str(dest))
    finally:
        os.umask(umask)
    assert (done.exit_code, done.result["outcome"], done.result["bytes"], done.result["files"]) == (0, "done", 300_022, 3)
    assert {path: (dest / path).read_bytes() for path in model.files} == model.files
    manifest = json.loads((dest / ".aim-manifest.json").read_bytes())
    assert (manifest["uri"], manifest["revision"]) == ("hf://org/model", model.commit)
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == {path: hashlib.sha256(c).hexdigest() for path, c in model.files.items()}
    modes = {str(path.relative_to(dest)): stat.S_IMODE(path.stat().st_mode) for path in dest.rglob("*")}
    assert modes == {".aim-manifest.json": 0o644, "config.json": 0o644, "empty.txt": 0o644, "onnx": 0o755, "onnx/weights.bin": 0o644}


async def test_lines_are_progress_and_then_the_result(model: Hub, aim: Aim, tmp_path: Path) -> None:
    done = await aim(*ALL, str(tmp_path / "cache"))
    first, *_, last, result = done.lines
    assert (first["event"], first["phase"], first["bytes"], first["total"], first["files"]) == ("progress", "downloading", 0, 300_022, 3)
    assert (last["event"], last["bytes"], last["files_done"], last["seconds_left"]) == ("progress", 300_022, 3, 0.0)
    assert result["event"] == "result"
    assert json.loads(done.termination) == result


async def test_a_second_run_only_asks_for_the_revision(model: Hub, aim: Aim, tmp_path: Path) -> None:
    await aim(*ALL, str(tmp_path / "cache"))
    model.asked.clear()
    again = await aim(*ALL, str(tmp_path / "cache"))
    assert (again.exit_code, again.message) == (0, "this revision is already there")
    assert model.asked == ["/api/models/org/model"]


async def test_a_new_revision_fetches_what_changed_and_removes_what_is_gone(model: Hub, aim: Aim, tmp_path: Path) -> None:
    dest = tmp_path / "cache"
    await aim(*ALL, str(dest))
    (dest / "notes.txt").write_text("not ours")
    model.commit, model.files = "d" * 40, {"config.json": b"{}", "empty.txt": b""}
    model.asked.clear()
    done = await aim(*ALL, str(dest))
    assert (done.exit_code, done.result["revision"]) == (0, model.commit)
    assert model.asked == ["/api/models/org/model", f"/org/model/resolve/{model.commit}/config.json bytes=0-1"]
    assert sorted(str(path.relative_to(dest)) for path in dest.rglob("*")) == [".aim-manifest.json", "config.json", "empty.txt", "notes.txt"]


async def test_ranges_of_a_large_file_share_its_signed_address_and_keep_the_token_at_the_hub(model: Hub, aim: Aim, tmp_path: Path) -> None:
    model.token = aim.env["HF_TOKEN"] = "hf_secret"
    done = await aim("fetch", f"hf://org/model@{model.commit}", str(tmp_path / "cache"), limits=replace(SMALL, ranges_in_flight=1))
    assert done.exit_code == 0
    assert sum(asked.startswith("/blobs/") for asked in model.asked) == 5
    assert len([asked for asked in model.asked if "/resolve/" in asked and "weights" in asked]) == 1
    assert "hf_secret" not in json.dumps(done.lines)


async def test_size_counts_without_fetching(model: Hub, aim: Aim) -> None:
    done = await aim("size", "hf://org/model")
    assert (done.exit_code, done.result["bytes"], done.result["files"]) == (0, 300_022, 3)
    assert model.asked == ["/api/models/org/model"]


Refusal = tuple[int, dict[str, str]] | None


@pytest.mark.parametrize(
    ("refusal", "uri", "ends"),
    [
        pytest.param((403, {"X-Error-Code": "GatedRepo"}), "hf://org/model", (11, "accept its terms at"), id="gated-already-in-the-listing"),
        pytest.param((401, {}), "hf://org/model", (11, "set credentials.huggingFaceToken"), id="private-or-missing-without-a-token"),
        pytest.param((403, {}), "hf://org/model", (11, "may not read org/model"), id="token-without-the-right"),
        pytest.param((403, {"X-Error-Message": "Access to this resource is disabled."}), "hf://org/model", (11, "disabled access"), id="disabled"),
        pytest.param(None, "hf://org/other", (10, "has no org/other"), id="no-such-repository"),
        pytest.param(None, "hf://org/model@v9", (10, "no revision 'v9'"), id="no-such-revision"),
        pytest.param((400, {}), "hf://org/model", (10, "does not take"), id="not-a-name-to-the-hub"),
    ],
)
async def test_refusals_end_the_run(model: Hub, aim: Aim, tmp_path: Path, refusal: Refusal, uri: str, ends: tuple[int, str]) -> None:
    model.refusals = [refusal] if refusal else []
    done = await aim("fetch", uri, str(tmp_path / "cache"))
    assert done.exit_code == ends[0]
    assert ends[1] in done.message


async def test_a_gated_model_whose_listing_is_public_says_what_to_accept(model: Hub, aim: Aim, tmp_path: Path) -> None:
    model.gated, aim.env["HF_TOKEN"] = True, "hf_secret"
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["outcome"]) == (11, "no_access")
    assert done.message == f"org/model is gated: accept its terms at {model.endpoint}/org/model with the account of the token"


async def test_a_refused_token_is_not_told(model: Hub, aim: Aim, tmp_path: Path) -> None:
    model.token, aim.env["HF_TOKEN"] = "hf_right", "hf_wrong"
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert done.exit_code == 11
    assert "refuses the token" in done.message
    assert "hf_wrong" not in json.dumps(done.lines) + done.termination


async def test_being_told_to_wait_is_not_a_failure(model: Hub, aim: Aim, tmp_path: Path) -> None:
    model.refusals = [(429, {"Retry-After": "0"}), (503, {}), (502, {})]
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, model.refusals) == (0, [])


async def test_a_hub_that_only_says_wait_is_worth_another_run(model: Hub, aim: Aim, tmp_path: Path) -> None:
    model.refusals = [(429, {})] * 5
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, done.message) == (20, "gave up after 5 tries: HTTP 429 from the hub")


async def test_content_that_is_not_what_the_hub_says_is_fetched_twice_and_refused(model: Hub, aim: Aim, tmp_path: Path) -> None:
    model.stated_sha256["onnx/weights.bin"] = "0" * 64
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["outcome"]) == (13, "checksum")
    assert "onnx/weights.bin" in done.message
    assert sum(asked.startswith("/blobs/") for asked in model.asked) == 10
    assert not (tmp_path / "cache" / "onnx" / "weights.bin").exists()
    assert not (tmp_path / "cache" / ".aim-manifest.json").exists()


async def test_files_that_a_failed_run_put_in_place_are_not_fetched_again(model: Hub, aim: Aim, tmp_path: Path) -> None:
    model.stated_sha256["onnx/weights.bin"] = "0" * 64
    await aim(*ALL, str(tmp_path / "cache"))
    model.stated_sha256.clear()
    model.asked.clear()
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert done.exit_code == 0
    assert not any("config.json" in asked for asked in model.asked)


async def test_too_little_space_is_told_with_both_numbers_before_a_byte_is_fetched(model: Hub, aim: Aim, tmp_path: Path) -> None:
    done = await aim(*ALL, str(tmp_path / "cache"), free_bytes=lambda _: 300_000)
    assert (done.exit_code, done.result["needed_bytes"], done.result["free_bytes"]) == (12, 300_022, 300_000)
    assert model.asked == ["/api/models/org/model"]


async def test_a_hub_that_is_away_is_worth_another_run(aim: Aim, tmp_path: Path) -> None:
    aim.env = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert (await aim(*ALL, str(tmp_path / "cache"))).exit_code == 20


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "a//b", "./a"])
async def test_a_key_that_would_leave_dest_is_refused(model: Hub, aim: Aim, tmp_path: Path, key: str) -> None:
    model.files[key] = b"evil"
    done = await aim(*ALL, str(tmp_path / "cache"))
    assert done.exit_code == 10
    assert repr(key) in done.message
    assert not (tmp_path / "cache").exists()
