"""A process that has imported this project, and forks instead of starting Python again.

Importing costs a second of CPU for each process. Tests start hundreds of processes, so they run
this server once and set `AIMLAB_FORKSERVER` to its socket. `aimctl.local.processes` then uses it,
in every process that imports `aimlab`.

Guarantees: a forked process has its own arguments, environment, working directory, output and
session, like a started one. It ends with the process that requested it, and with this server. Only
modules that do not read the environment may be imported beforehand.
"""

import asyncio
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from aimctl.local.processes import Program, add_launcher

SOCKET = "AIMLAB_FORKSERVER"
PR_SET_PDEATHSIG = 1
LONGEST_REQUEST_BYTES = 1 << 20


class Request(NamedTuple):
    """What to run: a script of Python, or `[sys.executable, "-m", module]`."""

    argv: list[str]
    env: dict[str, str]
    cwd: str


class Forked:
    """As much of `asyncio.subprocess.Process` as its users need."""

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reader, self._writer = reader, writer
        self._end = asyncio.ensure_future(self._wait())

    def send_signal(self, signal: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal)

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def _wait(self) -> int:
        line = await self._reader.readline()
        self._writer.close()
        self.returncode = int(line) if line else -signal.SIGKILL  # the server ended
        return self.returncode


def can_fork(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a server is there, and this is Python code that it can run: not another version of
    what it has imported."""
    if SOCKET not in os.environ or env.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
        return False
    program = Path(argv[0])
    if program == Path(sys.executable):
        return argv[1] == "-m" or argv[1].endswith(".py")
    return program.parent == Path(sys.executable).parent and program.name.startswith("aim")


@contextlib.contextmanager
def fork_server(folder: Path, modules: Sequence[str]) -> Iterator[Path]:
    """A server that has imported these modules; gives its socket, which is in the folder."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "aimlab.forkserver", str(listening.fileno()), *modules],
            stdin=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        )
    try:
        yield folder / "socket"
    finally:
        server.kill()
        server.wait()


async def fork(
    argv: Sequence[str], outputs: Sequence[IO[bytes]], env: Mapping[str, str], cwd: Path | None
) -> Forked:
    """`outputs` are one file for stdout and stderr, or one for each. Raises OSError where the
    server cannot be reached or does not fork."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[SOCKET])
    arguments = list(argv[1:] if argv[0] == sys.executable else argv)
    request = Request(arguments, dict(env), str(cwd or Path.cwd()))
    text = json.dumps(request).encode() + b"\n"
    sent = socket.send_fds(connection, [text], [output.fileno() for output in outputs])
    connection.sendall(text[sent:])
    reader, writer = await asyncio.open_connection(sock=connection)
    if not (pid := await reader.readline()):
        raise OSError(f"the fork server did not start {' '.join(argv)}")
    return Forked(int(pid), reader, writer)


async def launch(program: Program) -> Forked | None:
    """As `aimctl.local.processes.start` wants it."""
    env = program.env or os.environ
    if not can_fork(program.argv, env):
        return None
    with program.output.open("ab") as output:
        return await fork(program.argv, [output], env, program.cwd)


add_launcher(launch)


async def run(argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
    """The exit code of a program, and what it printed."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as output, os.fdopen(writes, "wb") as into:
        process = await fork(argv, [into], env, None)
        into.close()
        text = await asyncio.to_thread(output.read)
    return await process.wait(), text.decode()


def serve(listening: socket.socket) -> Request:
    """Forks for every connection, for ever. Returns in the forked processes."""
    running: dict[int, socket.socket] = {}
    waker, wakes = socket.socketpair()
    for end in (waker, wakes):
        end.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        for source in (listening, waker):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is waker:
                    with contextlib.suppress(BlockingIOError):
                        waker.recv(4096)
                    _report_ends(running, selector)
                elif key.fileobj is listening:
                    connection, _ = listening.accept()
                    if (request := _take(connection, running)) is not None:
                        return request
                    selector.register(connection, selectors.EVENT_READ)
                else:
                    _kill_for(key.fileobj, running, selector)


def _take(connection: socket.socket, running: dict[int, socket.socket]) -> Request | None:
    text, outputs, _, _ = socket.recv_fds(connection, LONGEST_REQUEST_BYTES, 2)
    while not text.endswith(b"\n"):
        text += connection.recv(LONGEST_REQUEST_BYTES)
    pid = os.fork()
    if pid:
        running[pid] = connection
        for output in outputs:
            os.close(output)
        return None
    os.setsid()
    connection.sendall(f"{os.getpid()}\n".encode())
    os.dup2(outputs[0], 1)
    os.dup2(outputs[-1], 2)
    for output in outputs:
        os.close(output)
    return Request(*json.loads(text))


def _report_ends(running: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            connection = running.pop(found[0])
            with contextlib.suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(found[1])}\n".encode())
            with contextlib.suppress(KeyError):
                selector.unregister(connection)
            connection.close()


def _kill_for(
    closed: object, running: dict[int, socket.socket], selector: selectors.BaseSelector
) -> None:
    """The process that requested it has ended."""
    for pid, connection in running.items():
        if connection is closed:
            selector.unregister(connection)
            os.kill(pid, signal.SIGKILL)
            return


def _become(request: Request) -> None:
    """In the forked process: nothing of the server is left, and the program runs."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request.env)
    time.tzset()
    os.chdir(request.cwd)
    if request.argv[0] == "-m":
        sys.argv = request.argv[1:]
        sys.path[0] = request.cwd
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = request.argv
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


def _end_at_once(codes: Sequence[int]) -> None:
    """The last action of a process whose exit code is known. The interpreter would take all modules
    apart, which copies the memory that the process shares with the server: 50 ms of CPU."""
    if codes:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(codes[0])


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """`python -m aimlab.forkserver FD MODULE...`: FD is a socket that listens."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    _die_with_parent()
    codes: list[int] = []
    atexit.register(_end_at_once, codes)  # before all others, so that it runs last
    for name in sys.argv[2:]:
        importlib.import_module(name)
        if name.endswith(".__main__"):
            del sys.modules[name]  # it runs again as the program that it is
    gc.collect()
    gc.freeze()
    request = serve(listening)
    listening.close()
    _die_with_parent()
    try:
        _become(request)
        codes.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            codes.append(end.code or 0)
        raise


if __name__ == "__main__":
    main()
