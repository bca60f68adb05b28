"""Two downloaders on one volume, and downloaders that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from aim_downloader.exit_codes import Failure
from aim_downloader.lock import LOCK_NAME, Lock, hold_lock, this_owner
from aim_downloader.retry import Limits
from aimlab.sources.dialects import Dialect, Store, dialect_store

LIMITS = Limits(beat_s=10.0, stale_beats=3, lock_poll_s=0.01)
SEED = 17
KILLS = 20
ELSEWHERE = {"machine": "another machine", "host": "pod-b"}
ENDED = {"process": 2**22 + 1}
RANDOM = random.Random(SEED)  # noqa: S311 - content
OBJECTS = {
    f"m/{name}": RANDOM.randbytes(size)
    for name, size in {
        "config.json": 700,
        "deep/large": 500_000,
        "deep/larger": 900_000,
        "one-range": 60_000,
        **{f"small/{number}": 3_000 for number in range(20)},
    }.items()
}


def lock_of(dest: Path, **instead: object) -> Lock:
    return Lock(dest, msgspec.structs.replace(this_owner(), **instead), LIMITS)


def age(path: Path, age_s: float) -> None:
    now_s = path.stat().st_mtime
    os.utime(path, (now_s - age_s, now_s - age_s))


@pytest.mark.parametrize(
    ("held_by", "age_s", "is_taken"),
    [
        pytest.param({}, 0, False, id="a-live-process-here"),
        pytest.param({}, 3600, False, id="a-live-process-here-without-heartbeat"),
        pytest.param(ENDED, 0, True, id="an-ended-process-here"),
        pytest.param({"started": "1"}, 0, True, id="another-process-with-its-number"),
        pytest.param(ELSEWHERE, 0, False, id="elsewhere"),
        pytest.param(ELSEWHERE, 29, False, id="elsewhere-late-heartbeat"),
        pytest.param(ELSEWHERE, 31, True, id="elsewhere-missed-heartbeats"),
        pytest.param({"machine": ""}, 0, False, id="unknown-machine"),
        pytest.param({"machine": ""}, 31, True, id="unknown-machine-missed-heartbeats"),
    ],
)
def test_only_the_lock_of_a_dead_owner_is_taken(
    tmp_path: Path, held_by: dict[str, object], age_s: float, is_taken: bool
) -> None:
    holder = lock_of(tmp_path, **held_by)
    assert holder.try_take()
    age(holder.path, age_s)
    assert lock_of(tmp_path).try_take() is is_taken
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"token": 1}'])
@pytest.mark.parametrize(("age_s", "is_taken"), [(0, False), (31, True)])
def test_a_torn_lock_is_taken_when_it_is_old(
    tmp_path: Path, content: bytes, age_s: float, is_taken: bool
) -> None:
    (tmp_path / LOCK_NAME).write_bytes(content)
    age(tmp_path / LOCK_NAME, age_s)
    assert lock_of(tmp_path).try_take() is is_taken


def make_link(path: Path) -> None:
    (path.parent / "outside").write_text("not ours")
    path.symlink_to(path.parent / "outside")


@pytest.mark.parametrize(
    "plant", [make_link, os.mkfifo, Path.mkdir], ids=["link", "pipe", "folder"]
)
def test_what_is_no_file_is_no_lock(tmp_path: Path, plant: Callable[[Path], object]) -> None:
    plant(tmp_path / LOCK_NAME)
    assert lock_of(tmp_path).try_take()
    if plant is make_link:
        assert (tmp_path / "outside").read_text() == "not ours"


def test_an_owner_that_lost_the_lock_notices_and_leaves_it(tmp_path: Path) -> None:
    first, second = lock_of(tmp_path, **ELSEWHERE), lock_of(tmp_path)
    assert first.try_take()
    first.beat()
    age(first.path, 31)
    assert second.try_take()
    for step in (first.require, first.beat):
        with pytest.raises(Failure, match="another downloader"):
            step()
    first.release()
    second.require()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_heartbeat_renews_the_time_of_the_lock(tmp_path: Path) -> None:
    lock = lock_of(tmp_path, **ELSEWHERE)
    assert lock.try_take()
    age(lock.path, 3600)
    lock.beat()
    assert not lock_of(tmp_path).try_take()


async def test_who_waits_gets_the_lock_after_its_release(tmp_path: Path) -> None:
    holder = lock_of(tmp_path)
    assert holder.try_take()
    has_it = asyncio.Event()

    async def wait_for_it() -> None:
        async with hold_lock(tmp_path, LIMITS):
            has_it.set()

    waiting = asyncio.create_task(wait_for_it())
    await asyncio.sleep(0)
    assert not has_it.is_set()
    holder.release()
    await waiting
    assert has_it.is_set()
    assert not holder.path.exists()


# --- processes, killed when so many bytes have passed


FORKER = """
import asyncio, os, sys
from pathlib import Path
from aim_downloader.main import parse, run
from aim_downloader.report import Reporter
from aim_downloader.retry import Limits
from aim_downloader.s3_client import _api_models
limits = Limits(range_bytes=65536, write_bytes=16384, backoff_s=0.01, lock_poll_s=0.02)
_api_models().load_service_model("s3", "service-2")
for line in sys.stdin:
    out, *argv = line.split()
    child = os.fork()
    if child == 0:
        with open(out, "w") as lines:
            os._exit(asyncio.run(run(parse(argv), os.environ, Reporter(lines), limits)))
    print(child, flush=True)
    if out.endswith("alone"):
        print(os.waitpid(child, 0)[1], flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


@dataclass
class Forker:
    """Starts downloaders as forks of a process that has everything imported."""

    process: asyncio.subprocess.Process
    folder: Path

    async def start(self, dest: Path, name: str) -> int:
        """The id of the new process. With the name `alone`, its end is printed too."""
        assert self.process.stdin
        line = f"{self.folder / name} fetch s3://models/m {dest}\n"
        self.process.stdin.write(line.encode())
        return int(await self.line())

    async def line(self) -> str:
        assert self.process.stdout
        return (await self.process.stdout.readline()).decode()

    async def wait_for_all(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        await self.process.wait()

    def result(self, name: str) -> dict[str, object]:
        last: dict[str, object] = json.loads((self.folder / name).read_text().splitlines()[-1])
        return last


@dataclass
class Meter:
    """Passes TCP on, and calls `then` once when `after_bytes` have come back from the server."""

    target_port: int
    after_bytes: float = float("inf")
    then: Callable[[], None] = lambda: None
    passed_bytes: int = 0
    port: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target_port)

        async def pass_on(
            source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counts: bool
        ) -> None:
            while data := await source.read(16384):
                if counts:
                    self._count(len(data))
                target.write(data)
                await target.drain()
            target.close()

        with suppress(ConnectionError):
            await asyncio.gather(
                pass_on(reader, to_server, counts=False), pass_on(from_server, writer, counts=True)
            )

    def _count(self, size_bytes: int) -> None:
        self.passed_bytes += size_bytes
        if self.passed_bytes >= self.after_bytes:
            self.after_bytes = float("inf")
            self.then()


@asynccontextmanager
async def place(tmp_path: Path) -> AsyncIterator[tuple[Store, Meter, Forker]]:
    async with dialect_store(Dialect(), OBJECTS) as store:
        meter = Meter(store.port)
        server = await asyncio.start_server(meter.accept, "127.0.0.1", 0)
        meter.port = server.sockets[0].getsockname()[1]
        env = os.environ | {
            "AIM_S3_0_ENDPOINT_URL": f"http://127.0.0.1:{meter.port}",
            "AIM_S3_0_ACCESS_KEY_ID": "key",
            "AIM_S3_0_SECRET_ACCESS_KEY": "secret",
        }
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FORKER, stdin=pipe, stdout=pipe, env=env
        )
        forker = Forker(process, tmp_path)
        try:
            yield store, meter, forker
        finally:
            await forker.wait_for_all()
            server.close()
            for task in meter.tasks:
                task.cancel()


def below(dest: Path) -> dict[str, bytes]:
    """The files that a model server sees."""
    found = {path.relative_to(dest).as_posix(): path for path in dest.rglob("*") if path.is_file()}
    return {
        f"m/{name}": path.read_bytes() for name, path in found.items() if not name.startswith(".")
    }


def everything_in(dest: Path) -> dict[str, bytes | None]:
    """Files and folders, with the downloader's own records."""
    return {
        path.relative_to(dest).as_posix(): path.read_bytes() if path.is_file() else None
        for path in dest.rglob("*")
    }


async def test_kill_9_at_any_byte_ends_with_identical_trees(tmp_path: Path) -> None:
    """A run that ends before its kill starts again with an empty folder."""
    points = random.Random(SEED)  # noqa: S311 - kills at the same bytes each time
    dest = tmp_path / "cache"
    kills, complete = 0, list[Path]()
    async with place(tmp_path) as (_, meter, forker):
        assert await forker.start(tmp_path / "whole", "alone")
        assert await forker.line() == "0\n"
        whole_bytes = meter.passed_bytes
        for attempt in range(4 * KILLS):
            process = await forker.start(dest, "alone")
            meter.passed_bytes, meter.after_bytes = 0, points.randrange(whole_bytes // 2)
            meter.then = lambda process=process: os.kill(process, 9)  # type: ignore[misc]
            status = int(await forker.line())
            meter.after_bytes = float("inf")
            kills += status == 9
            whole = below(dest) if dest.exists() else {}
            assert {name: OBJECTS[name] for name in whole} == whole, attempt
            if kills == KILLS:
                break
            if status == 0:
                complete.append(dest)
                dest = tmp_path / f"cache-{attempt}"
        assert kills == KILLS
        await forker.start(dest, "alone")
        assert await forker.line() == "0\n"
    assert below(dest) == OBJECTS
    trees = [everything_in(each) for each in (tmp_path / "whole", dest, *complete)]
    assert [tree for tree in trees if tree != trees[0]] == []


async def test_two_downloaders_share_the_work_of_one(tmp_path: Path) -> None:
    dest = tmp_path / "cache"
    async with place(tmp_path) as (store, _, forker):
        for name in ("first", "second"):
            await forker.start(dest, name)
        await forker.wait_for_all()
        results = [forker.result(name) for name in ("first", "second")]
        reads = [line for line in store.requests if line.endswith("/models/m/config.json")]
    assert {result["exit_code"] for result in results} == {0}
    assert sorted(str(result["message"]) for result in results) == [
        f"fetched {len(OBJECTS)} of {len(OBJECTS)} files",
        "this revision is already complete",
    ]
    assert len(reads) == 1
    assert below(dest) == OBJECTS
