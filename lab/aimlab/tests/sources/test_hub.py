"""The lab's hub against an unmodified huggingface_hub: what it lists and serves, and the errors of
the library."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from aimlab.sources.hub import Hub, InjectedError, Model, hub

CONFIG, WEIGHTS = b'{"model_type": "tiny"}', os.urandom(300_000)
Call = Callable[[HfApi], object]


@pytest.fixture
async def running() -> AsyncIterator[Hub]:
    async with hub() as started:
        yield started


@pytest.fixture
def model(running: Hub, tmp_path: Path) -> Model:
    (tmp_path / "weights").write_bytes(WEIGHTS)
    return running.put_model(
        "org/model",
        {"config.json": CONFIG, "sub/model.safetensors": tmp_path / "weights"},
        tags=["v1"],
    )


def api(running: Hub, token: str | None = None) -> HfApi:
    return HfApi(endpoint=running.endpoint, token=token or False)


async def test_a_snapshot_has_the_files_of_the_commit(
    running: Hub, model: Model, tmp_path: Path
) -> None:
    got = await asyncio.to_thread(
        api(running).snapshot_download, "org/model", cache_dir=tmp_path / "cache"
    )
    assert Path(got).name == model.head
    assert {path: (Path(got) / path).read_bytes() for path in model.files} == {
        "config.json": CONFIG,
        "sub/model.safetensors": WEIGHTS,
    }


async def test_info_and_tree_agree_on_sizes_and_checksums(running: Hub, model: Model) -> None:
    info = await asyncio.to_thread(api(running).model_info, "org/model", files_metadata=True)
    tree = await asyncio.to_thread(
        lambda: list(api(running).list_repo_tree("org/model", recursive=True))
    )
    assert info.sha == model.head
    assert {
        s.rfilename: (s.size, s.blob_id, s.lfs and s.lfs.sha256) for s in info.siblings or []
    } == {
        entry.path: (entry.size, entry.blob_id, entry.lfs and entry.lfs.sha256)  # type: ignore[union-attr]
        for entry in tree
    }


async def test_branches_tags_and_commits_are_revisions(running: Hub, model: Model) -> None:
    first = model.head
    running.put_model("org/model", {"config.json": b"{}"})
    running.put_model("org/model", {"config.json": b"[]"}, branch="refs/pr/1")
    refs = await asyncio.to_thread(api(running).list_repo_refs, "org/model")
    assert {
        ref.name: ref.target_commit for ref in (*refs.branches, *refs.tags)
    } == model.branches | {"v1": first}
    for revision, commit in (
        (None, model.head),
        ("v1", first),
        (first, first),
        ("refs/pr/1", model.branches["refs/pr/1"]),
    ):
        assert (
            await asyncio.to_thread(api(running).model_info, "org/model", revision=revision)
        ).sha == commit


async def test_a_name_that_moved_leads_to_the_new_one(
    running: Hub, model: Model, tmp_path: Path
) -> None:
    running.rename("org/model", "org/renamed")
    got = await asyncio.to_thread(
        api(running).hf_hub_download, "org/model", "sub/model.safetensors", cache_dir=tmp_path
    )
    assert await asyncio.to_thread(Path(got).read_bytes) == WEIGHTS
    assert (await asyncio.to_thread(api(running).model_info, "org/model")).id == "org/renamed"


def info(of: HfApi) -> object:
    return of.model_info("org/model")


def metadata(of: HfApi) -> object:
    return of.get_hf_file_metadata(url=f"{of.endpoint}/org/model/resolve/main/config.json")


@pytest.mark.parametrize(
    ("restrict", "token", "call", "ends"),
    # over http the library does not take a bare 401 for a repository that is missing, as it does
    # over https
    [
        pytest.param(
            {"gated": True}, None, metadata, (GatedRepoError, 401), id="gated-without-a-token"
        ),
        pytest.param(
            {"gated": True},
            "hf_other",
            metadata,
            (GatedRepoError, 403),
            id="gated-and-not-accepted",
        ),
        pytest.param(
            {"private": True}, None, info, (HfHubHTTPError, 401), id="private-without-a-token"
        ),
        pytest.param(
            {"private": True},
            "hf_other",
            info,
            (RepositoryNotFoundError, 404),
            id="private-of-another-user",
        ),
        pytest.param({}, "hf_unknown", info, (HfHubHTTPError, 401), id="unknown-token"),
        pytest.param(
            {},
            None,
            lambda of: of.model_info("org/none"),
            (HfHubHTTPError, 401),
            id="not-there-without-a-token",
        ),
        pytest.param(
            {},
            "hf_other",
            lambda of: of.model_info("org/none"),
            (RepositoryNotFoundError, 404),
            id="not-there",
        ),
        pytest.param(
            {},
            None,
            lambda of: of.model_info("org/model", revision="v9"),
            (RevisionNotFoundError, 404),
            id="no-such-revision",
        ),
    ],
)
@pytest.mark.usefixtures("model")
async def test_rejections_are_the_hubs(
    running: Hub,
    restrict: dict[str, bool],
    token: str | None,
    call: Call,
    ends: tuple[type[HfHubHTTPError], int],
) -> None:
    running.restrict("org/model", readers=["hf_reader"], **restrict)
    running.tokens.add("hf_other")
    with pytest.raises(ends[0]) as caught:
        await asyncio.to_thread(call, api(running, token))
    assert caught.value.response.status_code == ends[1]


async def test_readers_of_what_is_private_or_gated_get_it(running: Hub, model: Model) -> None:
    running.restrict("org/model", gated=True, private=True, readers=["hf_reader"])
    assert await asyncio.to_thread(info, api(running, "hf_reader"))
    assert await asyncio.to_thread(metadata, api(running, "hf_reader"))


async def test_a_gated_model_is_listed_for_everyone(running: Hub, model: Model) -> None:
    running.restrict("org/model", gated=True)
    assert (await asyncio.to_thread(api(running).model_info, "org/model")).gated == "manual"


async def test_each_requested_error_is_answered_once(running: Hub, model: Model) -> None:
    model.errors = [InjectedError(429, retry_after_s=3)]
    with pytest.raises(HfHubHTTPError) as caught:
        await asyncio.to_thread(info, api(running))
    assert (caught.value.response.status_code, caught.value.response.headers["Retry-After"]) == (
        429,
        "3",
    )
    assert await asyncio.to_thread(info, api(running))
