"""A mirror that stands still is re-created, one that moves is waited for, and its reader reports
that it is behind."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from aimbus import (
    Bus,
    CaughtUp,
    Event,
    Level,
    Loading,
    MirrorStalled,
    NatsServer,
    Stalled,
    ensure_streams,
    follow,
    maintain_streams,
)
from aimbus.jetstream import STREAM_NOT_FOUND, api, stream_info
from aimbus.session import Session
from aimbus.streams import wait_until_mirrored
from aimschema import subjects
from aimschema.messages import KindSynced, ObjectChanged

Pod = Callable[..., ObjectChanged]
SOON_S = 0.5
PODS = [subjects.objects("Pod"), subjects.of_synced("Pod")]
pytestmark = pytest.mark.timeout(90)

HELD_UP = [
    pytest.param({"sealed": True}, id="sealed"),
    pytest.param({"max_msg_size": 10}, id="a-limit-below-every-message"),
]
"""What makes a real mirror stand still: set by hand, and nothing that it takes to be a mirror of
the log."""


async def hold_up(bus: Bus, how: dict[str, Any]) -> None:
    session = await bus.session()
    info = await stream_info(session, "AIM_STATE")
    assert info is not None
    await api(session, "STREAM.UPDATE.AIM_STATE", {**info["config"], **how})


async def stored(bus: Bus) -> set[str]:
    """Subjects of which AIM_STATE has a message."""
    info = await api(await bus.session(), "STREAM.INFO.AIM_STATE", {"subjects_filter": ">"})
    return set(info["state"].get("subjects") or {})


@pytest.mark.parametrize("how", HELD_UP)
async def test_a_stalled_mirror_is_recreated_with_everything(
    bus: Bus, pod: Pod, how: dict[str, Any]
) -> None:
    levels: list[Level] = []
    await bus.publisher.publish(KindSynced(kind="Pod", resource_version="1", objects=1))
    await ensure_streams(bus)
    await hold_up(bus, how)
    await bus.publisher.publish(pod("a"))
    made = await ensure_streams(bus, stalled_after_s=SOON_S, on_level=levels.append)
    assert (made.log_made, made.republish) == (False, True)
    assert await stored(bus) == {"aim.object.Pod.ml.a"}, (
        "the marker goes: what is older than the log may be missing"
    )
    [stalled] = [level for level in levels if level.stalled]
    assert (stalled.lag > 0, stalled.still_s >= SOON_S) == (True, True)
    assert levels[-1].lag == 0
    assert not (await ensure_streams(bus)).republish


async def test_maintaining_streams_requests_republishing(bus: Bus, pod: Pod) -> None:
    async with (
        contextlib.aclosing(maintain_streams(bus, stalled_after_s=SOON_S)) as maintained,
        asyncio.timeout(30),
    ):
        assert not (await anext(maintained)).republish
        await hold_up(bus, {"sealed": True})
        await bus.publisher.publish(pod("a"))
        assert (await anext(maintained)).republish
    assert await stored(bus) == {"aim.object.Pod.ml.a"}


async def test_a_kill_of_the_server_in_the_middle_changes_nothing(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    await hold_up(bus, {"sealed": True})
    await bus.publisher.publish(pod("a"))
    behind = asyncio.Event()
    waiting = asyncio.create_task(
        ensure_streams(
            bus, stalled_after_s=2.0, on_level=lambda level: behind.set() if level.lag else None
        )
    )
    async with asyncio.timeout(40):
        await behind.wait()
        await server.kill()
        await server.start()
        assert (await waiting).republish
    assert await stored(bus) == {"aim.object.Pod.ml.a"}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            {"mirror": {"name": "AIM_LOG", "opt_start_seq": 1_000_000}}, id="from-far-ahead"
        ),
        pytest.param(
            {"mirror": {"name": "AIM_LOG", "filter_subject": "aim.object.Job.>"}}, id="of-a-part"
        ),
        pytest.param({"mirror": {"name": "OTHER"}}, id="of-another-stream"),
        pytest.param({"mirror": {"name": "NOWHERE"}}, id="of-no-stream"),
        pytest.param({"sources": [{"name": "AIM_LOG"}]}, id="a-source-instead"),
        pytest.param({"mirror": {"name": "AIM_LOG"}, "max_msgs": 1}, id="that-keeps-one-message"),
    ],
)
async def test_what_is_no_mirror_of_the_whole_log_is_replaced_at_once(
    bus: Bus, pod: Pod, config: dict[str, Any]
) -> None:
    session = await bus.session()
    for name in ("a", "b"):
        await bus.publisher.publish(pod(name))
    await api(
        session, "STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["other"], "storage": "file"}
    )
    await api(session, "STREAM.DELETE.AIM_STATE")
    rest = {
        "name": "AIM_STATE",
        "storage": "file",
        "persist_mode": "async",
        "max_msgs_per_subject": 1,
        "allow_msg_ttl": True,
    }
    await api(session, "STREAM.CREATE.AIM_STATE", rest | config)
    async with asyncio.timeout(20):
        assert (await ensure_streams(bus)).republish
    assert await stored(bus) == {"aim.object.Pod.ml.a", "aim.object.Pod.ml.b"}


async def test_a_current_reader_reports_a_stalled_mirror_and_reloads(bus: Bus, pod: Pod) -> None:
    async with contextlib.aclosing(follow(bus, PODS)) as follower, asyncio.timeout(60):
        assert [await anext(follower), await anext(follower)] == [Loading(), CaughtUp()]
        await hold_up(bus, {"sealed": True})
        await bus.publisher.publish(pod("a"))
        item = await anext(follower)
        assert isinstance(item, Stalled)
        assert "behind AIM_LOG and has not moved" in item.why
        await ensure_streams(bus, stalled_after_s=SOON_S)
        items = [await anext(follower), await anext(follower), await anext(follower)]
        assert (items[0], isinstance(items[1], Event), items[2]) == (Loading(), True, CaughtUp())


async def test_a_reader_that_starts_on_a_stalled_mirror_waits(bus: Bus, pod: Pod) -> None:
    await hold_up(bus, {"sealed": True})
    await bus.publisher.publish(pod("a"))
    async with contextlib.aclosing(follow(bus, PODS)) as follower, asyncio.timeout(40):
        assert isinstance(await anext(follower), Stalled)
        await ensure_streams(bus, stalled_after_s=SOON_S)
        assert await anext(follower) == Loading()


class Answers:
    """A session whose AIM_LOG ends at `target`, and whose AIM_STATE is at the next of
    `sequences` with every look; None: there is no stream."""

    def __init__(self, target: int, sequences: Iterator[int | None]) -> None:
        self._target = target
        self._sequences = sequences

    async def request(self, subject: str, _data: bytes, **_: Any) -> SimpleNamespace:
        if subject.startswith("$JS.API.STREAM.MSG.GET"):
            return SimpleNamespace(data=json.dumps({"message": {"seq": self._target}}))
        seq = next(self._sequences)
        error = {"error": {"code": 404, "err_code": STREAM_NOT_FOUND}}
        return SimpleNamespace(
            data=json.dumps(error if seq is None else {"state": {"last_seq": seq}})
        )


async def level(
    target: int, sequences: Iterator[int | None], stalled_after_s: float
) -> list[Level]:
    levels: list[Level] = []
    await wait_until_mirrored(
        cast(Session, Answers(target, sequences)), stalled_after_s, levels.append
    )
    return levels


async def test_a_mirror_that_moves_is_waited_for_however_slowly() -> None:
    """A step with every third look takes far longer in all than the limit."""
    levels = await level(10, (count // 3 for count in range(100)), stalled_after_s=0.4)
    assert [found.lag for found in levels[::3]] == list(range(10, -1, -1))
    assert max(found.still_s for found in levels) < 0.4


async def test_a_mirror_that_stops_half_way_is_not() -> None:
    with pytest.raises(MirrorStalled, match="AIM_STATE is 5 messages behind AIM_LOG"):
        await level(10, (min(count, 5) for count in range(1000)), stalled_after_s=0.2)


async def test_where_there_is_no_mirror_nothing_is_waited_for() -> None:
    assert [found.lag for found in await level(10, iter([None]), stalled_after_s=0.2)] == [0]
