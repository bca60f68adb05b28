"""`hf://` against mirrors that depart from the hub, one switch of the lab's hub at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aim_downloader.hub import FileFacts, facts_of
from aim_downloader.source import ExpectedChecksums
from aimlab.sources.hub import Hub, HubDialect, InjectedError, Model

if TYPE_CHECKING:
    from conftest import Aim

FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "onnx/weights.bin": os.urandom(300_000),
    "empty.txt": b"",
}
URI = "hf://org/model"
HTML = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"


@pytest.fixture
def model(hub: Hub, aim: Aim) -> Model:
    aim.env = {"HF_ENDPOINT": hub.endpoint}
    return hub.put_model("org/model", FILES, tags=["v1"])


def omitting(*fields: str, **more: object) -> HubDialect:
    return HubDialect(omits=frozenset(fields), **more)  # type: ignore[arg-type]


MIRRORS = {
    "the-hub": HubDialect(),
    "no-size": omitting("size"),
    "no-size-and-links": omitting("size", "linked"),
    "no-size-and-network": omitting("size", network=False),
    "no-size-head-405": omitting("size", head=405),
    "no-size-head-403-ranges-ignored": omitting("size", head=403, ranges="ignored"),
    "no-size-head-501-network": omitting("size", "linked", head=501),
    "no-blob-ids": omitting("blobId"),
    "no-lfs": omitting("lfs"),
    "lfs-without-sha256": omitting("lfs.sha256"),
    "lfs-without-pointer-size": omitting("lfs.pointerSize", "lfs.size"),
    "no-id": omitting("id", "modelId", "private", "gated"),
    "nothing-of-files": omitting("size", "lfs", "blobId"),
    "commit-only": omitting("siblings"),
    "commit-only-tree-without-lfs": omitting("siblings", "lfs"),
    "ranges-ignored": HubDialect(ranges="ignored"),
    "ranges-rejected": HubDialect(ranges="rejected"),
    "ranges-ignored-and-no-network": HubDialect(ranges="ignored", network=False),
    "ranges-ignored-and-no-length": omitting("Content-Length", ranges="ignored"),
    "no-length": omitting("Content-Length"),
    "no-content-range": omitting("Content-Range"),
}


@pytest.mark.parametrize("name", MIRRORS)
async def test_what_a_mirror_leaves_out_is_found_out_or_done_without(
    model: Model, hub: Hub, aim: Aim, name: str
) -> None:
    hub.dialect = MIRRORS[name]
    dest = aim.folder / "cache"
    done = await aim("fetch", URI, str(dest))
    assert (done.exit_code, done.result["bytes"], done.result["revision"]) == (
        0,
        300_022,
        model.head,
    ), done.message
    assert {path: (dest / path).read_bytes() for path in FILES} == FILES
    assert (await aim("fetch", URI, str(dest))).message == "this revision is already complete"
    assert (await aim("verify", URI, str(dest))).exit_code == 0


@pytest.mark.parametrize(("revision", "named"), [("", "main"), ("@v1", "v1")])
async def test_without_a_commit_the_requested_revision_is_reported(
    model: Model, hub: Hub, aim: Aim, revision: str, named: str
) -> None:
    hub.dialect = omitting("sha")
    done = await aim("fetch", URI + revision, str(aim.folder / "cache"))
    assert (done.exit_code, done.result["revision"]) == (0, named)
    assert f"{hub.endpoint} names no commit" in done.message
    hub.put_model("org/model", FILES | {"config.json": b'{"model_type": "huge"}'}, tags=["v1"])
    again = await aim("fetch", URI + revision, str(aim.folder / "cache"))
    assert (again.exit_code, again.message.startswith("fetched 1 of 3 files")) == (0, True)


async def test_without_commit_size_and_digests_the_etag_shows_a_change(
    model: Model, hub: Hub, aim: Aim
) -> None:
    hub.dialect = omitting("sha", "size", "lfs", "blobId")
    assert (await aim("fetch", URI, str(aim.folder / "cache"))).exit_code == 0
    hub.put_model("org/model", FILES | {"config.json": b'{"model_type": "huge"}'})
    assert (await aim("fetch", URI, str(aim.folder / "cache"))).message.startswith(
        "fetched 1 of 3 files"
    )


async def test_a_mirror_that_lists_no_files_in_any_way_has_none(
    model: Model, hub: Hub, aim: Aim
) -> None:
    hub.dialect = omitting("siblings", "tree")
    done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (done.exit_code, done.message) == (10, "hf://org/model has no files")


async def test_other_bytes_than_those_requested_are_never_taken(
    model: Model, hub: Hub, aim: Aim
) -> None:
    hub.dialect = HubDialect(ranges="shifted")
    done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (done.exit_code, "were asked for" in done.message) == (20, True)
    assert not (aim.folder / "cache" / "onnx" / "weights.bin").exists()


async def test_a_login_page_is_not_taken_for_an_answer(model: Model, hub: Hub, aim: Aim) -> None:
    hub.dialect = HubDialect(page=HTML)
    done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (done.exit_code, len(hub.requests)) == (20, 1)
    assert (
        done.message
        == f"{hub.endpoint} answers with text/html where JSON is expected: correct HF_ENDPOINT"
    )


async def test_a_redirect_of_a_mirror_is_named_where_a_token_is_needed(
    model: Model, hub: Hub, aim: Aim
) -> None:
    from aimlab.sources.hub import hub as run_hub  # noqa: PLC0415

    async with run_hub() as front:
        front.dialect = HubDialect(moved_to=hub.endpoint)
        aim.env = {"HF_ENDPOINT": front.endpoint}
        assert (await aim("fetch", URI, str(aim.folder / "cache"))).exit_code == 0
        hub.restrict("org/model", private=True, readers=["hf_secret"])
        aim.env["HF_TOKEN"] = "hf_secret"
        done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert done.exit_code == 11
    assert (
        f"{front.endpoint} redirects to {hub.endpoint}, where no token is sent: set HF_ENDPOINT"
        " to it" in done.message
    )


async def test_a_mirror_that_redirects_in_a_circle_is_named(
    model: Model, hub: Hub, aim: Aim
) -> None:
    hub.dialect = HubDialect(moved_to=hub.endpoint)
    done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (done.exit_code, done.message) == (
        20,
        f"{hub.endpoint} redirects without end: correct HF_ENDPOINT",
    )
    assert len(hub.requests) < 50


@pytest.mark.parametrize("code", ["GatedRepo", ""])
@pytest.mark.parametrize("status", [401, 403, 404, 451])
async def test_the_error_text_of_the_hub_is_in_the_message(
    model: Model, aim: Aim, status: int, code: str
) -> None:
    text = "Your request is awaiting a review by the authors"
    model.errors = [
        InjectedError(
            status,
            code,
            f"{text}, Bearer abcdefgh12345678, see"
            " https://x.example.org/?token=abcdefgh12345678&a=b",
        )
    ]
    done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (done.exit_code in {10, 11}, text in done.message) == (True, True)
    assert "abcdefgh12345678" not in json.dumps(done.lines) + done.termination


async def test_an_unreachable_hub_is_reported_with_the_cause(
    model: Model, aim: Aim, tmp_path: Path
) -> None:
    model.errors = [InjectedError(503, message="Down for maintenance")] * 5
    done = await aim("fetch", URI, str(tmp_path / "cache"))
    assert (done.exit_code, done.message) == (
        20,
        "gave up after 5 tries: HTTP 503 from the hub: Down for maintenance",
    )


SHA256, SHA1 = "a" * 64, "b" * 40


@pytest.mark.parametrize(
    ("entry", "facts"),
    [
        (
            {"rfilename": "w", "size": 3, "lfs": {"sha256": SHA256}},
            FileFacts("w", 3, ExpectedChecksums(sha256=SHA256)),
        ),
        (
            {"rfilename": "w", "lfs": {"size": 3, "oid": SHA256}},
            FileFacts("w", 3, ExpectedChecksums(sha256=SHA256)),
        ),
        (
            {"rfilename": "w", "size": 3, "blobId": SHA1},
            FileFacts("w", 3, ExpectedChecksums(git_sha1=SHA1)),
        ),
        (
            {"rfilename": "w", "size": "3", "blobId": 7, "lfs": None},
            FileFacts("w", None, ExpectedChecksums()),
        ),
        ({"rfilename": "w", "size": -1, "lfs": {}}, FileFacts("w", None, ExpectedChecksums())),
        (
            {"rfilename": "w", "size": True, "lfs": {"sha256": "short"}},
            FileFacts("w", None, ExpectedChecksums()),
        ),
    ],
)
def test_a_malformed_field_counts_as_left_out(entry: object, facts: FileFacts) -> None:
    assert facts_of([entry], "rfilename") == [facts]


@pytest.mark.parametrize("entry", [{"rfilename": None}, {}, "w", None])
def test_a_listing_with_a_nameless_file_is_incomplete(entry: object) -> None:
    assert facts_of([{"rfilename": "w"}, entry], "rfilename") is None


async def test_a_mirror_that_does_not_name_its_files_is_named(
    model: Model, hub: Hub, aim: Aim
) -> None:
    hub.dialect = omitting("rfilename")
    done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (done.exit_code, done.message) == (
        20,
        f"{hub.endpoint} lists files of org/model without their names",
    )


@pytest.mark.parametrize("listed", [None, {}, "files", 3, {"rfilename": "w"}])
def test_a_malformed_listing_has_no_files(listed: object) -> None:
    assert facts_of(listed, "rfilename") == []
