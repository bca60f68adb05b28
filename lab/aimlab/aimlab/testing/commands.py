"""Commands of this project, and kubectl, as a person starts them."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path


async def command(env: Mapping[str, str], name: str, *args: str, code: int = 0) -> str:
    """What a command of this environment prints, errors too; fails the test where it ends with
    another code."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name(name)),
        *args,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == code, (
        f"{name} {' '.join(args)} ended with {process.returncode}: {output.decode()}"
    )
    return output.decode()
