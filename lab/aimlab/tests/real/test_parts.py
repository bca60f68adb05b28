"""A part that cannot be built ends the command, which names what is missing or where the log of
the build is."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from aimlab.real import parts

GO = """#!/bin/sh
case "$1" in
build) echo "no space left on device"; exit 1;;
esac
"""


async def ended(path: Path, cache: Path) -> tuple[int | None, str]:
    """The exit code of the command on a machine with the programs in `path` alone, and what it
    printed."""
    pipe, errors = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    env = os.environ | {"PATH": str(path), parts.CACHE: str(cache)}
    argv = [sys.executable, "-m", "aimlab.real", "true"]
    process = await asyncio.create_subprocess_exec(*argv, env=env, stdout=pipe, stderr=errors)
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_every_missing_tool_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    code, output = await ended(tmp_path, tmp_path / "cache")
    assert code == 1
    assert "go is missing. Go 1.26 or newer" in output
    assert "ip is missing. " in output
    assert "apt-get install iproute2" in output


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Programs of which Go fails."""
    for name, text in (("go", GO), ("ip", "#!/bin/sh\n"), ("nice", '#!/bin/sh\nexec "$@"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


async def test_a_build_that_fails_is_quoted_with_its_log(broken: Path, tmp_path: Path) -> None:
    code, output = await ended(broken, tmp_path / "cache")
    assert code == 1
    assert (
        f"the log is {tmp_path}/cache/log/kube-apiserver.log, and ends:\nno space left on device"
        in output
    )


async def test_what_failed_is_built_again(broken: Path, tmp_path: Path) -> None:
    first, second = [await ended(broken, tmp_path / "cache") for _ in range(2)]
    assert first == second


def test_the_cache_is_outside_the_repository() -> None:
    assert parts.cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/aim-real")
    assert parts.cache_folder({parts.CACHE: "/y", "XDG_CACHE_HOME": "/x"}) == Path("/y")
    assert parts.cache_folder({}) == Path.home() / ".cache" / "aim-real"
