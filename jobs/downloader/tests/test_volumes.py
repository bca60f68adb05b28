"""Volumes that do not know every call, do not say how large they are, or are full."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aim_downloader import disk
from aim_downloader.disk import free_of
from aimlab.sources.dialects import Dialect, Store, dialect_store

if TYPE_CHECKING:
    from conftest import Aim

FILES = {"config.json": b"{}", "deep/weights.bin": os.urandom(200_000)}
OBJECTS = {f"org/model/{path}": content for path, content in FILES.items()}
URI = "s3://models/org/model"


def env(store: Store) -> dict[str, str]:
    return {
        "AIM_S3_0_ENDPOINT_URL": store.endpoint_url,
        "AIM_S3_0_ACCESS_KEY_ID": "an-access-key",
        "AIM_S3_0_SECRET_ACCESS_KEY": "a-secret-key",
    }


async def fetched(dest: Path, *answers: str) -> dict[str, Any]:
    """The result of a run in a separate process, on a volume with these responses to calls."""
    async with dialect_store(Dialect(), OBJECTS) as store:
        program = [sys.executable, "-m", "aim_downloader", "fetch", URI, str(dest)]
        odd = [sys.executable, "-m", "aimlab.odd_volume", *answers, "--"]
        child = await asyncio.create_subprocess_exec(
            *odd,
            *program,
            stdout=asyncio.subprocess.PIPE,
            env=env(store) | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        out, _ = await child.communicate()
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


@pytest.mark.parametrize("error", ["EPERM", "EACCES", "ENOTSUP", "EINVAL", "ENOSYS", "EROFS"])
async def test_modes_times_owners_and_locks_are_best_effort(tmp_path: Path, error: str) -> None:
    done = await fetched(
        tmp_path / "cache", *(f"{call}={error}" for call in ("chmod", "chown", "utime", "flock"))
    )
    assert done["exit_code"] == 0, done["message"]
    assert {path: (tmp_path / "cache" / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize("error", ["ENOTSUP", "EINVAL", "ENOSYS", "EPERM"])
async def test_a_volume_without_syncing_is_written_all_the_same(tmp_path: Path, error: str) -> None:
    assert (await fetched(tmp_path / "cache", f"fsync={error}"))["exit_code"] == 0


async def test_data_that_does_not_reach_the_disk_is_no_success(tmp_path: Path) -> None:
    done = await fetched(tmp_path / "cache", "fsync=EIO")
    assert (done["exit_code"], "Input/output error" in done["message"]) == (20, True)
    assert not (tmp_path / "cache" / ".aim-manifest.json").exists()


@pytest.mark.parametrize("error", ["EPERM", "ENOTSUP", "ENOSYS"])
async def test_a_volume_that_cannot_rename_is_named(tmp_path: Path, error: str) -> None:
    done = await fetched(tmp_path / "cache", f"rename={error}")
    assert (done["exit_code"], "the volume cannot rename files" in done["message"]) == (
        20,
        True,
    ), done["message"]


async def test_a_volume_that_takes_no_writes_in_the_middle_is_named(tmp_path: Path) -> None:
    done = await fetched(tmp_path / "cache", "pwrite=ENOTSUP")
    assert (done["exit_code"], done["message"]) == (
        20,
        f"{tmp_path / 'cache'}: Operation not supported",
    )


@pytest.mark.parametrize(("error", "quota"), [("ENOSPC", False), ("EDQUOT", True)])
async def test_a_volume_that_takes_no_more_is_too_small(
    tmp_path: Path, error: str, quota: bool
) -> None:
    done = await fetched(tmp_path / "cache", f"pwrite={error}")
    assert (done["exit_code"], done["needed_bytes"], "a quota is used up" in done["message"]) == (
        12,
        200_002,
        quota,
    )
    assert done["free_bytes"] > 0


async def test_the_stand_in_rejects_the_configured_calls(tmp_path: Path) -> None:
    tried = "import os, sys; os.chmod(sys.argv[1], 0o644)"
    odd = [
        sys.executable,
        "-m",
        "aimlab.odd_volume",
        "chmod=EPERM",
        "--",
        sys.executable,
        "-c",
        tried,
        str(tmp_path),
    ]
    child = await asyncio.create_subprocess_exec(*odd, stderr=asyncio.subprocess.PIPE)
    _, problem = await child.communicate()
    assert (child.returncode, b"Operation not permitted" in problem) == (1, True)


async def test_modes_are_set_where_the_volume_has_them(aim: Aim, tmp_path: Path) -> None:
    async with dialect_store(Dialect(), OBJECTS) as store:
        aim.env = env(store)
        await aim("fetch", URI, str(tmp_path / "cache"))
    modes = [
        stat.S_IMODE((tmp_path / "cache" / path).stat().st_mode)
        for path in ("deep", "deep/weights.bin")
    ]
    assert modes == [0o755, 0o644]


# --- space


def facts(
    *, blocks: int, available: int, fragment: int = 4096, block: int = 4096
) -> os.statvfs_result:
    return os.statvfs_result((block, fragment, blocks, available, available, 0, 0, 0, 0, 255))


@pytest.mark.parametrize(
    ("facts", "free"),
    [
        pytest.param(facts(blocks=100, available=10), 40_960, id="some"),
        pytest.param(facts(blocks=100, available=0), 0, id="full"),
        pytest.param(facts(blocks=0, available=0), None, id="no-blocks-in-all"),
        pytest.param(facts(blocks=0, available=100), None, id="no-blocks-in-all-but-some-free"),
        pytest.param(facts(blocks=100, available=10, fragment=0), 40_960, id="no-fragments"),
        pytest.param(
            facts(blocks=100, available=10, fragment=0, block=0), None, id="blocks-of-no-size"
        ),
        pytest.param(facts(blocks=2**63, available=2**63), 2**75, id="absurd"),
    ],
)
def test_free_space_is_read_from_the_file_system(
    facts: os.statvfs_result, free: int | None
) -> None:
    assert free_of(facts) == free


def test_a_file_system_without_a_size_has_unknown_free_space(tmp_path: Path) -> None:
    assert disk.free_bytes(Path("/proc")) is None
    assert disk.free_bytes(tmp_path / "missing") is None
    assert disk.free_bytes(tmp_path)


async def test_a_file_system_without_statvfs_is_written_to(tmp_path: Path) -> None:
    assert (await fetched(tmp_path / "cache", "statfs=ENOSYS"))["exit_code"] == 0


@pytest.mark.parametrize(
    ("free", "code"), [(None, 0), (2**75, 0), (0, 12), (200_001, 12), (200_002, 0)]
)
async def test_unknown_space_is_not_too_little(
    aim: Aim, tmp_path: Path, free: int | None, code: int
) -> None:
    async with dialect_store(Dialect(), OBJECTS) as store:
        aim.env = env(store)
        done = await aim("fetch", URI, str(tmp_path / "cache"), free_bytes=lambda _: free)
    assert done.exit_code == code, done.message


FULL = """
import asyncio, itertools, json, os, sys
from aim_downloader.main import parse, run
from aim_downloader.report import Reporter
from aim_downloader.retry import Limits
from aimlab.odd_volume import answer_with

answers = itertools.chain([10**9], itertools.repeat(json.loads(sys.argv[1])))
answer_with({"pwrite": "ENOSPC"})
free = lambda _: next(answers)
asyncio.run(run(parse(sys.argv[2:]), os.environ, Reporter(sys.stdout), Limits(), free))
"""
"""A run for which statvfs first reports enough space, then no write succeeds, then statvfs reports
the space of its argument."""


@pytest.mark.parametrize(
    ("free", "text"),
    [
        (0, "200000 bytes still needed, 0 free"),
        (70, "200000 bytes still needed, 70 free"),
        (None, "200000 bytes still needed, its file system does not report its free space"),
    ],
)
async def test_a_disk_that_fills_up_reports_needed_and_free_bytes(
    aim: Aim, tmp_path: Path, free: int | None, text: str
) -> None:
    """Before, there seemed to be enough; the small file is there already."""
    dest = tmp_path / "cache"
    async with dialect_store(Dialect(), OBJECTS) as store:
        aim.env = env(store)
        await aim("fetch", "s3://models/org/model/config.json", str(dest))
        command = [sys.executable, "-c", FULL, json.dumps(free), "fetch", URI, str(dest)]
        child = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, env=aim.env
        )
        out, _ = await child.communicate()
    done = json.loads(out.splitlines()[-1])
    assert (done["exit_code"], done["outcome"]) == (12, "no_space")
    assert text in done["message"]
    assert done["needed_bytes"] == 200_000
    assert done.get("free_bytes") == free
