"""One downloader at a time for a volume: a lock file with its owner and a heartbeat.

Works without locks of the file system. `O_EXCL` creates the file atomically, also on NFS. The owner
rewrites it every `beat_s`; so its time comes from the clock of the volume. Others compare it with
the time of a file that they write there themselves: clocks of nodes do not matter. A file that was
not rewritten for `stale_beats` is of a dead owner, and so is one whose process on this very machine
has ended.

An owner that was paused for longer (its node slept, the volume hung) may lose the lock. It notices
before it places a file, and with each heartbeat. Until then it can only write bytes that its
successor writes too: parts are named after files, and hold one version of each.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from aim_downloader import disk
from aim_downloader.exit_codes import Failure, Outcome
from aim_downloader.retry import Limits
from aim_downloader.transfer import in_thread

LOCK_NAME = ".aim-lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the lock file. `token` is unique. `machine`, `process` and `started` find the
    process again, if it is on this machine."""

    token: str
    host: str
    machine: str
    process: int
    started: str


def this_owner() -> Owner:
    """A new owner in this process."""
    return Owner(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        process=os.getpid(),
        started=_start_time(os.getpid()),
    )


@dataclass(frozen=True)
class Lock:
    """A lock of DEST that `owner` has or wants. All methods block."""

    dest: Path
    owner: Owner
    limits: Limits

    @property
    def path(self) -> Path:
        return self.dest / LOCK_NAME

    def try_take(self) -> bool:
        """Take the lock if it is free, or its owner is dead. Raises OSError."""
        if disk.create_plain(self.path, msgspec.json.encode(self.owner)):
            return True
        held = _read(self.path)
        if held is not None and not self._is_dead(held):
            return False
        self._remove(held)
        return disk.create_plain(self.path, msgspec.json.encode(self.owner))

    def require(self) -> None:
        """Raises Failure(TRANSIENT) if another downloader has taken the lock."""
        held = _read(self.path)
        if held is None or held.token != self.owner.token:
            by = f" ({held.host})" if held else ""
            message = (
                f"another downloader{by} fills {self.dest}: this one was without a heartbeat for"
                " too long; the next run continues"
            )
            raise Failure(Outcome.TRANSIENT, message)

    def beat(self) -> None:
        """Renew the time of the lock. A volume that rejects this once is asked again."""
        self.require()
        with suppress(OSError):
            disk.rewrite_plain(self.path, msgspec.json.encode(self.owner))

    def release(self) -> None:
        """Remove the lock if it is still this owner's."""
        with suppress(OSError):
            held = _read(self.path)
            if held and held.token == self.owner.token:
                self.path.unlink()

    def _is_dead(self, held: Owner) -> bool:
        if held.machine and held.machine == self.owner.machine:
            return _start_time(held.process) != held.started
        return self._is_stale()

    def _is_stale(self) -> bool:
        return self._age_s() > self.limits.beat_s * self.limits.stale_beats

    def _age_s(self) -> float:
        """The age of the lock file by the clock of the volume; 0 if it is gone."""
        probe = self.path.with_name(f"{LOCK_NAME}.{self.owner.token}")
        try:
            disk.create_plain(probe, b"")
            return probe.lstat().st_mtime - self.path.lstat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)

    def _remove(self, judged: Owner | None) -> None:
        """Remove the lock of a dead owner. A file without an owner may be a lock that is written
        just now: it must be as old as a stale one."""
        if judged is None and disk.is_plain(self.path) and not self._is_stale():
            return
        aside = self.path.with_name(f"{LOCK_NAME}.{self.owner.token}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        moved = _read(aside)
        if judged and moved and moved.token != judged.token:  # a third one was faster: its lock
            with suppress(OSError):
                os.link(aside, self.path)
        disk.remove_any(aside)


def _read(path: Path) -> Owner | None:
    """None for a missing file, and for one that is no lock."""
    try:
        return msgspec.json.decode(disk.read_plain(path), type=Owner)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


@asynccontextmanager
async def hold_lock(dest: Path, limits: Limits) -> AsyncIterator[Lock]:
    """Hold the lock during the block; wait for it first. Raises Failure(TRANSIENT) in the block if
    another downloader takes it."""
    lock = Lock(dest, this_owner(), limits)
    while not await in_thread(lock.try_take):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(limits.lock_poll_s)
    try:
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(_beat(lock))
            try:
                yield lock
            finally:
                beating.cancel()
    finally:
        await in_thread(lock.release)


async def _beat(lock: Lock) -> None:
    while True:
        await asyncio.sleep(lock.limits.beat_s)
        await in_thread(lock.beat)


def _machine() -> str:
    """The running system and its processes: two containers on one node have the same boot id, but
    not the same processes. Empty if unknown."""
    try:
        boot = _BOOT_ID.read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(process: int) -> str:
    """The start time of a process; empty if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else fields[19]
    except (OSError, IndexError):
        return ""
