"""Which lines of a downloader's log are used: the owner of the pod decides what it prints."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, cast

import pytest

from aim_cacher.action_handlers import Followers, Pace, parse
from aim_cacher.actions import FollowLog
from aim_cacher.downloader_output import PROGRESS
from aim_cacher.metrics import DOWNLOAD_BYTES
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.projection import Observation
from aimkube import Cluster
from aimschema.messages import Progress
from aimschema.resources import CACHE, POD, Key

ABOUT = Key(CACHE.kind, "ns", "c")
LINE = (
    b'{"event":"progress","phase":"downloading","bytes":5,"total":10,"rate":2.5,'
    b'"seconds_left":2.0,"file":"a/b"}'
)


def with_number(field: str, number: str) -> bytes:
    numbers = {"bytes": "5", "total": "10", "rate": "2.5", "seconds_left": "2.0", field: number}
    return (
        '{"event":"progress","phase":"downloading",'
        + ",".join(f'"{name}":{text}' for name, text in numbers.items())
        + "}"
    ).encode()


def test_a_line_of_progress_is_taken_as_it_is() -> None:
    taken = parse(LINE, ABOUT)
    assert taken == Progress(
        kind=CACHE.kind,
        namespace="ns",
        name="c",
        phase="downloading",
        bytes=5,
        total=10,
        rate=2.5,
        seconds_left=2.0,
        file="a/b",
    )


@pytest.mark.parametrize("field", ["bytes", "total", "rate", "seconds_left"])
@pytest.mark.parametrize(
    "number",
    [
        "1" + "0" * 308,
        "1" + "0" * 5000,
        "1e308",
        "1e400",
        "-1",
        "-1e308",
        "NaN",
        "Infinity",
        "true",
        '"5"',
        "{}",
    ],
)
def test_a_line_with_absurd_numbers_is_dropped(field: str, number: str) -> None:
    assert parse(with_number(field, number), ABOUT) is None


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            LINE[:-1] + b',"more":' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="nested-without-end"
        ),
        pytest.param(b"[" * 60_000, id="only-brackets"),
        pytest.param(LINE.replace(b"a/b", b"\xff"), id="no-utf-8"),
        pytest.param(LINE.replace(b"a/b", b"\\ud800"), id="half-a-surrogate"),
        pytest.param(LINE.replace(b"a/b", b"a" * 60_000), id="a-file-name-no-system-has"),
        pytest.param(LINE.replace(b"downloading", b"d" * 60_000), id="a-phase-without-end"),
        pytest.param(b"null", id="null"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_whatever_else_is_printed_is_no_progress(raw: bytes) -> None:
    assert parse(raw, ABOUT) is None


def test_a_pace_lets_something_through_at_most_so_often() -> None:
    pace = Pace(0.5)
    assert [pace.is_due(now_s) for now_s in (10.0, 10.0, 10.4, 10.5, 10.9, 11.1)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


class World:
    """A cluster whose pod prints `lines`, and what a follower of its log publishes and observes."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.live: list[int] = []
        self.observed: list[int] = []
        self.task: asyncio.Task[None] | None = None
        self.ctx = ActionContext(cast("Cluster", self), self.publish_live, self.observe, self.start)

    async def follow_log(
        self, _namespace: str, _pod: str, _container: str
    ) -> AsyncGenerator[bytes]:
        for line in self.lines:
            yield line

    async def publish_live(self, progress: Progress) -> None:
        self.live.append(progress.bytes)

    def observe(self, observation: Observation) -> None:
        assert isinstance(observation.value, Progress)
        self.observed.append(observation.value.bytes)

    def start(self, work: Coroutine[Any, Any, ActionResult]) -> asyncio.Task[None]:
        async def run() -> None:
            assert await work == ActionResult()

        self.task = asyncio.create_task(run())
        return self.task


async def follow(*lines: bytes) -> World:
    world = World(list(lines))
    action = FollowLog(pod=Key(POD.kind, "ns", "p"), uid="u", container="downloader", about=ABOUT)
    followers = Followers()
    first = await followers(action, world.ctx)
    assert first.observations == (Observation(ABOUT, PROGRESS, None),)
    assert world.task is not None
    assert await followers(action, world.ctx) == ActionResult()
    await world.task
    return world


async def test_of_a_flood_of_lines_the_first_and_the_last_go_on() -> None:
    world = await follow(*(with_number("bytes", str(number)) for number in range(1, 2001)))
    assert (world.live[0], world.live[-1]) == (1, 2000)
    assert len(world.live) < 10
    assert world.observed == [1]


async def test_the_count_of_bytes_stays_finite_whatever_is_printed() -> None:
    before = DOWNLOAD_BYTES._value.get()
    await follow(LINE, *([with_number("bytes", "1" + "0" * 308)] * 2), with_number("bytes", "7"))
    assert DOWNLOAD_BYTES._value.get() - before == 7
