"""Volumes with foreign files at the names that the downloader uses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aim_downloader.disk import Part, remove_files
from aim_downloader.manifest import decode, decode_journal
from aim_downloader.source import SourceFile
from aimlab.sources.dialects import Dialect, dialect_store

if TYPE_CHECKING:
    from conftest import Aim

FILES = {"config.json": b"{}", "deep/weights.bin": os.urandom(200_000)}
OBJECTS = {f"org/model/{path}": content for path, content in FILES.items()}
URI = "s3://models/org/model"
VICTIM = b"not ours"
pytestmark = pytest.mark.timeout(60)


def a_pipe(path: Path, _victim: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def another_name(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def a_folder(path: Path, _victim: Path) -> None:
    (path / "within").mkdir(parents=True)


def part_names(folder: Path) -> dict[str, str]:
    """The names of the parts of the larger file, as a run makes them."""
    (folder / ".aim-part").mkdir(parents=True)
    Part(
        folder, SourceFile(path="deep/weights.bin", size_bytes=200_000, tag="", key=""), 64 * 1024
    ).close()
    names = {path.suffix[1:]: path.name for path in (folder / ".aim-part").iterdir()}
    shutil.rmtree(folder)
    return names


async def fetched(aim: Aim, dest: Path) -> str:
    async with dialect_store(Dialect(), OBJECTS) as store:
        keys = {
            "AIM_S3_0_ACCESS_KEY_ID": "an-access-key",
            "AIM_S3_0_SECRET_ACCESS_KEY": "a-secret-key",
        }
        aim.env = {"AIM_S3_0_ENDPOINT_URL": store.endpoint_url} | keys
        done = await aim("fetch", URI, str(dest))
    return done.message if done.exit_code else ""


def is_whole(dest: Path) -> bool:
    plain = all(
        not (dest / path).is_symlink() and (dest / path).read_bytes() == content
        for path, content in FILES.items()
    )
    return (
        plain
        and not os.path.lexists(dest / ".aim-part")
        and json.loads((dest / ".aim-manifest.json").read_bytes())["uri"] == URI
    )


@pytest.mark.parametrize(
    "thing", [a_pipe, a_link, another_name, a_folder], ids=lambda thing: thing.__name__
)
@pytest.mark.parametrize("place", ["manifest", "journal", "temporary", "data", "done", "unknown"])
async def test_what_is_at_a_name_of_ours_is_replaced(
    aim: Aim, tmp_path: Path, place: str, thing: Callable[[Path, Path], None]
) -> None:
    parts = part_names(tmp_path / "other")
    names = {
        "manifest": "../.aim-manifest.json",
        "journal": "journal",
        "temporary": "manifest",
        "unknown": "x",
    } | parts
    victim, dest = tmp_path / "victim", tmp_path / "cache"
    victim.write_bytes(VICTIM)
    (dest / ".aim-part").mkdir(parents=True)
    thing(dest / ".aim-part" / names[place], victim)
    assert await fetched(aim, dest) == ""
    assert is_whole(dest)
    assert victim.read_bytes() == VICTIM


@pytest.mark.parametrize("target", ["a-folder", "nothing"])
async def test_no_part_goes_through_a_link_to_a_folder(
    aim: Aim, tmp_path: Path, target: str
) -> None:
    outside, dest = tmp_path / "outside", tmp_path / "cache"
    outside.mkdir()
    (outside / "journal").write_bytes(VICTIM)
    (outside / "other").write_bytes(VICTIM)
    dest.mkdir()
    (dest / ".aim-part").symlink_to(outside if target == "a-folder" else tmp_path / "nowhere")
    assert await fetched(aim, dest) == ""
    assert is_whole(dest)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {
        "journal": VICTIM,
        "other": VICTIM,
    }
    assert not (tmp_path / "nowhere").exists()


async def test_a_file_in_place_of_the_folder_of_parts_is_replaced(aim: Aim, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".aim-part").write_bytes(b"")
    assert await fetched(aim, tmp_path / "cache") == ""
    assert is_whole(tmp_path / "cache")


async def test_a_file_behind_a_link_counts_as_missing(aim: Aim, tmp_path: Path) -> None:
    dest = tmp_path / "cache"
    assert await fetched(aim, dest) == ""
    (dest / "deep").rename(tmp_path / "outside")
    (dest / "deep").symlink_to(tmp_path / "outside")
    assert await fetched(aim, dest) == ""
    assert not (dest / "deep").is_symlink()
    assert is_whole(dest)


OUTSIDE = [
    "../outside/victim",
    "a/../../outside/victim",
    "",
    ".",
    "..",
    "a\x00b",
    "x" * 300,
    "a//../../outside/victim",
]


@pytest.mark.parametrize("path", [*OUTSIDE, "absolute"])
@pytest.mark.parametrize("record", ["manifest", "journal"])
async def test_a_record_leads_to_no_file_outside(
    aim: Aim, tmp_path: Path, path: str, record: str
) -> None:
    victim, dest = tmp_path / "outside" / "victim", tmp_path / "cache"
    victim.parent.mkdir()
    victim.write_bytes(VICTIM)
    (dest / "a").mkdir(parents=True)
    (dest / ".aim-part").mkdir()
    entry = {
        "path": str(victim) if path == "absolute" else path,
        "size_bytes": len(VICTIM),
        "sha256": "",
        "tag": "",
    }
    if record == "journal":
        (dest / ".aim-part" / "journal").write_text(json.dumps(entry) + "\n")
    else:
        (dest / ".aim-manifest.json").write_text(
            json.dumps({"uri": URI, "revision": "before", "files": [entry]})
        )
    assert await fetched(aim, dest) == ""
    assert is_whole(dest)
    assert victim.read_bytes() == VICTIM


def test_a_stale_file_of_ours_is_still_removed(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "weights").write_bytes(b"")
    remove_files(tmp_path, ["../tmp", "old/weights"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"files":' * 100_000, b'{"x":' + b"[" * 100_000, b"\xff", b""]
)
def test_a_malformed_record_counts_as_none(data: bytes) -> None:
    assert decode(data) is None
    assert decode_journal(data) == []


def test_a_range_number_without_end_is_none_of_ours(tmp_path: Path) -> None:
    file = SourceFile(path="weights", size_bytes=200_000, tag="", key="")
    folder = tmp_path / ".aim-part"
    folder.mkdir()
    part = Part(tmp_path, file, 64 * 1024)
    part.finish(part.ranges[0])
    part.write(0, bytes(200_000))
    part.close()
    (done,) = folder.glob("*.done")
    done.write_bytes(done.read_bytes() + b"9" * 5000 + b"\n")
    again = Part(tmp_path, file, 64 * 1024)
    again.close()
    assert again.finished == {0}
