"""`hf://` from a folder or a prefix in S3 with the layout of the hub's own cache."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi

from aim_downloader.exit_codes import Retryable
from aim_downloader.hub import open_hub
from aim_downloader.retry import Limits
from aim_downloader.uri import HubUri
from aimlab.sources.dialects import Dialect, dialect_store
from aimlab.sources.hub import Hub, InjectedError

if TYPE_CHECKING:
    from conftest import Aim

FILES = {"config.json": b"{}", "deep/model.safetensors": os.urandom(100_000), "empty": b""}
KEYS = {"AIM_S3_0_ACCESS_KEY_ID": "key", "AIM_S3_0_SECRET_ACCESS_KEY": "secret"}


def below(dest: Path) -> dict[str, bytes]:
    found = {path.relative_to(dest).as_posix(): path for path in dest.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".")}


@pytest.fixture
async def mirror(hub: Hub, tmp_path: Path) -> Path:
    """As the hub's own client writes it."""
    hub.put_model("org/model", FILES)
    api = HfApi(endpoint=hub.endpoint, token=False)
    folder = tmp_path / "mirror"
    await asyncio.to_thread(api.snapshot_download, "org/model", cache_dir=folder)
    return folder


def commit_in(mirror: Path) -> str:
    return (mirror / "models--org--model/refs/main").read_text()


@pytest.mark.parametrize("by_commit", [False, True], ids=["branch", "commit"])
async def test_a_folder_serves_what_the_hub_had(
    mirror: Path, aim: Aim, tmp_path: Path, by_commit: bool
) -> None:
    commit = commit_in(mirror)
    aim.env = {"HF_ENDPOINT": f"file://{mirror}"}
    uri = f"hf://org/model@{commit}" if by_commit else "hf://org/model"
    done = await aim("fetch", uri, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["revision"]) == (0, commit), done.message
    assert below(tmp_path / "cache") == FILES
    assert (await aim("verify", uri, str(tmp_path / "cache"))).exit_code == 0


async def test_a_prefix_in_s3_serves_what_the_hub_had(
    mirror: Path, aim: Aim, tmp_path: Path
) -> None:
    """A copy that follows links, without the blobs."""
    copied = [path for path in mirror.rglob("*") if path.is_file() and "blobs" not in path.parts]  # noqa: ASYNC240 - a few
    objects = {f"hf/{path.relative_to(mirror).as_posix()}": path.read_bytes() for path in copied}
    async with dialect_store(Dialect(), objects) as store:
        aim.env = KEYS | {
            "HF_ENDPOINT": "s3://models/hf/",
            "AIM_S3_0_ENDPOINT_URL": store.endpoint_url,
        }
        done = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
        again = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
        missing = await aim("fetch", "hf://org/other", str(tmp_path / "other"))
    assert (done.exit_code, done.result["revision"]) == (0, commit_in(mirror)), done.message
    assert below(tmp_path / "cache") == FILES
    assert again.message == "this revision is already complete"
    assert (missing.exit_code, "models--org--other" in missing.message) == (10, True)


@pytest.mark.parametrize(
    ("damage", "code", "text"),
    [
        pytest.param(shutil.rmtree, 10, "no org/model at main", id="no-model"),
        pytest.param(
            lambda repo: (repo / "refs/main").write_text("../../x"), 10, "no commit", id="bad-ref"
        ),
        pytest.param(lambda repo: shutil.rmtree(repo / "snapshots"), 10, "missing", id="no-files"),
        pytest.param(lambda repo: shutil.rmtree(repo / "blobs"), 10, "missing", id="no-blobs"),
    ],
)
async def test_an_incomplete_mirror_is_named(
    mirror: Path, aim: Aim, tmp_path: Path, damage: object, code: int, text: str
) -> None:
    damage(mirror / "models--org--model")  # type: ignore[operator]
    aim.env = {"HF_ENDPOINT": f"file://{mirror}"}
    done = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
    assert (done.exit_code, text in done.message) == (code, True), done.message


async def test_a_damaged_blob_is_not_taken(mirror: Path, aim: Aim, tmp_path: Path) -> None:
    blob = (
        mirror
        / "models--org--model/blobs"
        / hashlib.sha256(FILES["deep/model.safetensors"]).hexdigest()
    )
    content = bytearray(blob.read_bytes())
    content[50_000] ^= 1
    blob.write_bytes(content)
    aim.env = {"HF_ENDPOINT": f"file://{mirror}"}
    done = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
    assert (done.exit_code, "sha256" in done.message) == (13, True)


async def test_a_link_out_of_the_mirror_is_rejected(mirror: Path, aim: Aim, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    snapshot = mirror / "models--org--model/snapshots" / commit_in(mirror)
    (snapshot / "stolen").symlink_to(tmp_path / "secret")
    aim.env = {"HF_ENDPOINT": f"file://{mirror}"}
    done = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
    assert (done.exit_code, "outside of" in done.message) == (10, True)


async def test_no_request_goes_to_a_hub_whose_limit_is_used_up(hub: Hub) -> None:
    model = hub.put_model("org/model", FILES)
    async with open_hub(HubUri("org", "model"), {"HF_ENDPOINT": hub.endpoint}, Limits()) as source:
        files = (await source.listing()).files
        model.errors = [InjectedError(429, retry_after_s=100)]
        waits = []
        for file in (files[0], files[1], files[0]):
            with pytest.raises(Retryable) as caught:
                async with source.open_range(file, 0, 1):
                    pytest.fail("a rejected request has no content")
            waits.append(caught.value.retry_after_s)
        assert await source.plain_request(files[0], (0, 2)) is None
    assert waits[0] == 100
    assert [90 < wait_s <= 100 for wait_s in waits] == [True] * 3
    assert len([request for request in hub.requests if "/resolve/" in request]) == 1
