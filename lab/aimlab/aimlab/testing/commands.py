"""Commands of this project, and kubectl, as a person starts them."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from aimlab import forkserver


async def run(env: Mapping[str, str], name: str, *args: str) -> tuple[int | None, str]:
    """The exit code of a command of this environment, and what it prints, errors too."""
    argv = (str(Path(sys.executable).with_name(name)), *args)
    if forkserver.can_fork(argv, env):
        return await forkserver.run(argv, env)
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def command(env: Mapping[str, str], name: str, *args: str, code: int = 0) -> str:
    """What a command prints; fails the test where it ends with another code."""
    ended, output = await run(env, name, *args)
    assert ended == code, f"{name} {' '.join(args)} ended with {ended}: {output}"
    return output


async def start(env: Mapping[str, str], name: str, *args: str) -> asyncio.subprocess.Process:
    """A command that a test interrupts. A shell lets what it starts in the background ignore
    SIGINT, the tests too; this command does not."""
    return await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name(name)),
        *args,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
