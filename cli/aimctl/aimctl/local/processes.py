"""Child processes that cannot outlive their parent.

Guarantees: a process started here leads its own session, so it can be stopped with its children. On
Linux the kernel kills it when the parent dies, for any reason (prctl(2), PR_SET_PDEATHSIG), but not
the grandchildren. Elsewhere only a regular end of the parent stops it.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import aiohttp

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: `output` gets stdout and stderr, appended."""

    argv: Sequence[str]
    output: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None


class Process(Protocol):
    """A running process, or one that ended."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""

    def send_signal(self, signal: int) -> None: ...

    async def wait(self) -> int:
        """Its exit code."""


Launcher = Callable[[Program], Awaitable[Process | None]]
"""Another way to start a program: None where it is not for this program."""
_launchers: list[Launcher] = []


def add_launcher(launcher: Launcher) -> None:
    """Asked by `start` before it starts a program itself; tests fork where they can."""
    _launchers.append(launcher)


async def start(program: Program) -> Process:
    """Raises OSError where the command cannot be run. Call it from the main thread: the kernel
    ties the child to the starting thread."""
    program.output.parent.mkdir(parents=True, exist_ok=True)
    for launcher in _launchers:
        if (process := await launcher(program)) is not None:
            return process
    starter = os.getpid()

    def die_with_starter() -> None:
        if _LIBC is not None:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != starter:
                os._exit(1)

    with program.output.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *program.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=program.env,
            cwd=program.cwd,
            start_new_session=True,
            preexec_fn=die_with_starter,
        )


async def stop(process: Process, *, grace_s: float) -> int:
    """SIGTERM, and after the grace SIGKILL, to the process and its children; gives the exit code
    (negative: the signal)."""
    if process.returncode is None and grace_s > 0:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), grace_s)
    _signal_group(process, signal.SIGKILL)
    return await process.wait()


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class Children:
    """A group of named processes with a log file each in `log_dir`; leaving the block stops them
    all, the last started first.

    `env` is added to the environment of each.
    """

    def __init__(
        self, log_dir: Path, *, grace_s: float = 5.0, env: Mapping[str, str] | None = None
    ) -> None:
        self._log_dir = log_dir
        self._grace_s = grace_s
        self._env = dict(env or {})
        self.running: dict[str, Process] = {}

    async def __aenter__(self) -> Self:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop_all()

    def log_of(self, name: str) -> Path:
        return self._log_dir / f"{name}.log"

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> Process:
        """`env` is added to this process's own environment. Raises OSError where the command
        cannot be run, ValueError for a name in use."""
        if name in self.running:
            raise ValueError(f"a process named {name} is running")
        process = await start(
            Program(argv, self.log_of(name), env=os.environ | self._env | dict(env or {}))
        )
        self.running[name] = process
        return process

    async def stop(self, name: str) -> int:
        return await stop(self.running.pop(name), grace_s=self._grace_s)

    async def kill(self, name: str) -> None:
        """As a crash would: no warning, no grace."""
        await stop(self.running.pop(name), grace_s=0)

    async def stop_all(self) -> None:
        for name in reversed(list(self.running)):
            await self.stop(name)

    async def first_end(self) -> tuple[str, int]:
        """Waits until any of them ends; its name and exit code."""
        waits = {
            asyncio.create_task(process.wait()): name for name, process in self.running.items()
        }
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            ended = next(iter(done))
            return waits[ended], ended.result()
        finally:
            for wait in waits:
                wait.cancel()


READY_WITHIN_S = 60.0


POLL_S = 0.05


async def until_answers(
    process: Process,
    url: str,
    what: str,
    within_s: float | None = READY_WITHIN_S,
) -> None:
    """Waits until `url` answers 200 (`within_s` None: for ever). Raises RuntimeError where the
    process ends or the time is over."""
    give_up = float("inf") if within_s is None else time.monotonic() + within_s
    async with aiohttp.ClientSession(trust_env=False) as client:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get(url) as answer:
                    if answer.ok:
                        return
            if process.returncode is not None or time.monotonic() > give_up:
                raise RuntimeError(f"did not come up: {what}")
            await asyncio.sleep(POLL_S)


async def fail_when_one_ends(*groups: Children) -> None:
    """Wait until a process of any group ends. Raises RuntimeError naming it and its log."""
    waits = {asyncio.create_task(group.first_end()): group for group in groups}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        ended = next(iter(done))
        name, code = ended.result()
        raise RuntimeError(f"{name} ended with code {code}; its log is {waits[ended].log_of(name)}")
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
