"""Which files are fetched: globs, and weights once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.exit_codes import Failure
from aim_downloader.selection import Selection, duplicate_weights, select, selection_of
from aim_downloader.source import Listing, SourceFile
from aimlab.sources.hub import Hub

if TYPE_CHECKING:
    from conftest import Aim

WEIGHTS = {"model.safetensors": b"weights", "config.json": b"{}", "pytorch_model.bin": b"weights"}


@pytest.mark.parametrize(
    ("paths", "left_out"),
    [
        ("model.safetensors pytorch_model.bin config.json", "pytorch_model.bin"),
        ("model.safetensors tf_model.h5 flax_model.msgpack rust_model.ot", "tf flax rust"),
        (
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors"
            " model.safetensors.index.json pytorch_model-00001-of-00002.bin"
            " pytorch_model-00002-of-00002.bin pytorch_model.bin.index.json",
            "pytorch",
        ),
        ("model-00001-of-00002.safetensors pytorch_model.bin", ""),
        ("model.safetensors other.bin training_args.bin", ""),
        ("adapter_model.safetensors adapter_model.bin", "adapter_model.bin"),
        ("unet/model.safetensors vae/pytorch_model.bin", ""),
        ("unet/model.safetensors unet/pytorch_model.bin", "unet/pytorch_model.bin"),
        ("model.fp16.safetensors pytorch_model.bin pytorch_model.fp16.bin", "pytorch_model.fp16"),
        ("pytorch_model.bin tf_model.h5", ""),
        ("diffusion_pytorch_model.safetensors diffusion_pytorch_model.bin", "diffusion_pytorch_m"),
        ("consolidated.00.pth model.safetensors model.gguf", ""),
        ("model-00001-of-00000.safetensors pytorch_model.bin", ""),
    ],
)
def test_weights_are_fetched_once(paths: str, left_out: str) -> None:
    """`left_out`: beginnings of names, all of them."""
    found = duplicate_weights(paths.split())
    starts = tuple(left_out.split())
    expected = {
        path
        for path in paths.split()
        if starts and path.startswith(starts) and ".safet" not in path
    }
    assert found == expected


@given(st.lists(st.text(max_size=30)))
def test_any_listing_can_be_searched_for_weights(paths: list[str]) -> None:
    assert duplicate_weights(paths) <= set(paths)


@pytest.mark.parametrize(
    ("include", "exclude", "path", "is_fetched"),
    [
        (None, ["*.bin"], "a/b.bin", False),
        (None, ["*.bin"], "a/b.bin.txt", True),
        (["*.json"], None, "deep/config.json", True),
        (["config.json"], None, "deep/config.json", True),
        (["deep/*"], None, "deep/er/x", True),
        (["deep/*"], None, "x", False),
        (["/config.json"], None, "config.json", False),
        (["*.json"], ["deep/*"], "deep/a.json", False),
        ([], None, "anything", True),
        (None, [], "anything", True),
        (["[ab].json"], None, "b.json", True),
        (["*.JSON"], None, "b.json", False),
        (["["], None, "[", True),
    ],
)
def test_globs_select_files(
    include: list[str] | None, exclude: list[str] | None, path: str, is_fetched: bool
) -> None:
    both = {"AIM_INCLUDE": include, "AIM_EXCLUDE": exclude}
    env = {name: json.dumps(globs) for name, globs in both.items() if globs is not None}
    assert selection_of(env).matches(path) is is_fetched


@pytest.mark.parametrize("text", ["*.json", "{}", '"*.json"', "[1]", "[null]", "[[]]", "["])
@pytest.mark.parametrize("variable", ["AIM_INCLUDE", "AIM_EXCLUDE"])
def test_a_malformed_list_names_its_variable(variable: str, text: str) -> None:
    with pytest.raises(Failure, match=variable):
        selection_of({variable: text})


def test_an_s3_prefix_is_fetched_whole_by_default() -> None:
    listing = Listing("r", tuple(SourceFile(path, 1, "", path) for path in WEIGHTS))
    assert select(listing, Selection(), is_hub=False) == listing
    assert len(select(listing, Selection(), is_hub=True).files) == 2


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, ["config.json", "model.safetensors"]),
        ({"AIM_EXCLUDE": "[]"}, sorted(WEIGHTS)),
        ({"AIM_INCLUDE": '["*.bin", "*.json"]'}, ["config.json", "pytorch_model.bin"]),
    ],
)
async def test_a_users_choice_wins_over_the_default(
    hub: Hub, aim: Aim, tmp_path: Path, variables: dict[str, str], names: list[str]
) -> None:
    hub.put_model("org/model", WEIGHTS)
    aim.env = {"HF_ENDPOINT": hub.endpoint} | variables
    done = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
    manifest = (tmp_path / "cache/.aim-manifest.json").read_bytes()
    assert (done.exit_code, [file["path"] for file in json.loads(manifest)["files"]]) == (0, names)
    assert done.result["manifest_digest"] == hashlib.sha256(manifest).hexdigest()
    again = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
    assert again.message == "this revision is already complete"
    assert again.result["manifest_digest"] == done.result["manifest_digest"]


async def test_a_smaller_choice_removes_the_other_files(hub: Hub, aim: Aim, tmp_path: Path) -> None:
    hub.put_model("org/model", WEIGHTS)
    for exclude in ("[]", '["*.bin"]'):
        aim.env = {"HF_ENDPOINT": hub.endpoint, "AIM_EXCLUDE": exclude}
        assert (await aim("fetch", "hf://org/model", str(tmp_path / "cache"))).exit_code == 0
    assert not (tmp_path / "cache/pytorch_model.bin").exists()
    assert (tmp_path / "cache/model.safetensors").exists()


async def test_a_choice_of_nothing_is_an_error(hub: Hub, aim: Aim, tmp_path: Path) -> None:
    hub.put_model("org/model", WEIGHTS)
    aim.env = {"HF_ENDPOINT": hub.endpoint, "AIM_INCLUDE": '["*.gguf"]'}
    done = await aim("fetch", "hf://org/model", str(tmp_path / "cache"))
    assert (done.exit_code, "leave none of the 3 files" in done.message) == (10, True)
