"""AIM_HISTORY: its limits, and messages that are stored once and in order."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from aimbus import (
    HISTORY,
    Appended,
    Bus,
    Event,
    HistoryMoved,
    NatsServer,
    OversizedMessage,
    StreamsRejected,
    append_history,
    connect,
    ensure_history,
    ensure_streams,
    forget_history,
    forget_version,
    read_history,
    read_newest,
)
from aimbus.history import VERSIONS
from aimbus.jetstream import api, stream_info
from aimschema import subjects
from aimschema.messages import SpecDeleted, SpecVersion
from aimschema.resources import Key

ALL = [f"{subjects.HISTORY}.>"]


def version(name: str, generation: int = 1, **spec: Any) -> SpecVersion:
    return SpecVersion(
        kind="AIMService",
        namespace="ml",
        name=name,
        uid=f"uid-{name}",
        generation=generation,
        resource_version=str(generation),
        spec=spec,
    )


async def stored(bus: Bus, *, newest_only: bool = False) -> list[tuple[int, str, int]]:
    found = []
    async for item in read_history(bus, ALL, newest_only=newest_only):
        assert isinstance(item, Event)
        assert isinstance(item.message, SpecVersion | SpecDeleted)
        found.append((item.seq, item.message.name, item.message.generation))
    return found


async def append(bus: Bus, *messages: tuple[SpecVersion, int]) -> list[int]:
    return await append_history(
        bus, [Appended(message, last) for message, last in messages], source="aim-watcher"
    )


async def test_the_stream_has_its_limits(bare_bus: Bus) -> None:
    assert await ensure_history(bare_bus, max_bytes=1 << 24)
    assert not await ensure_history(bare_bus, max_bytes=1 << 25)
    info = await stream_info(await bare_bus.session(), HISTORY)
    assert info is not None
    config = info["config"]
    assert (config["subjects"], config["max_msgs_per_subject"]) == (["aimhistory.>"], VERSIONS)
    assert (config["max_age"], config["max_bytes"]) == (365 * 24 * 3600 * 10**9, 1 << 25)


async def test_it_lies_beside_the_log(bus: Bus) -> None:
    """No subject belongs to both streams."""
    assert await ensure_history(bus)
    await append(bus, (version("a"), 0))
    log = await stream_info(await bus.session(), "AIM_LOG")
    assert log is not None
    assert log["state"]["messages"] == 0


async def test_a_message_comes_back_with_its_place(bare_bus: Bus) -> None:
    await ensure_history(bare_bus)
    await append(bare_bus, (version("a.b", replicas=1), 0), (version("b"), 0))
    await append(bare_bus, (version("a.b", 2, replicas=2), 1))
    assert await stored(bare_bus) == [(1, "a.b", 1), (2, "b", 1), (3, "a.b", 2)]
    assert await stored(bare_bus, newest_only=True) == [(2, "b", 1), (3, "a.b", 2)]


async def test_a_missing_stream_has_no_history(bare_bus: Bus) -> None:
    assert await stored(bare_bus) == []


@pytest.mark.parametrize("others", [0, 3], ids=["alone", "in-a-batch"])
async def test_a_second_writer_stores_nothing(bare_bus: Bus, others: int) -> None:
    await ensure_history(bare_bus)
    await append(bare_bus, (version("a"), 0))
    beside = [(version(f"other{number}"), 0) for number in range(others)]
    with pytest.raises(HistoryMoved):
        await append(bare_bus, *beside, (version("a"), 0))
    assert await stored(bare_bus) == [(1, "a", 1)]


async def test_a_lost_acknowledgement_stores_nothing_twice(bare_bus: Bus) -> None:
    await ensure_history(bare_bus)
    await append(bare_bus, (version("a"), 0))
    with pytest.raises(HistoryMoved):
        await append(bare_bus, (version("a"), 0))


async def test_an_oversized_message_is_not_sent(bare_bus: Bus) -> None:
    await ensure_history(bare_bus)
    with pytest.raises(OversizedMessage):
        await append(bare_bus, (version("a", big="x" * (1 << 20)), 0), (version("b"), 0))
    assert await stored(bare_bus) == []


async def test_the_oldest_versions_make_room(bare_bus: Bus) -> None:
    await ensure_history(bare_bus)
    seq = 0
    for generation in range(1, VERSIONS + 3):
        [seq] = await append(bare_bus, (version("a", generation), seq))
    found = await stored(bare_bus)
    assert (len(found), found[0][2], found[-1][2]) == (VERSIONS, 3, VERSIONS + 2)


async def test_removing_a_version_leaves_the_others(bare_bus: Bus) -> None:
    await ensure_history(bare_bus)
    await append(bare_bus, (version("a", secret="x"), 0), (version("b"), 0))
    await append(bare_bus, (version("a", 2), 1))
    await forget_version(bare_bus, 1)
    assert await stored(bare_bus) == [(2, "b", 1), (3, "a", 2)]
    assert await forget_history(bare_bus, Key("AIMService", "ml", "a")) == 1
    assert await append(bare_bus, (version("a", 2), 0)) == [4]


async def test_a_lack_of_room_names_the_stream(fast_dir: Path) -> None:
    server = NatsServer(fast_dir / "small")
    await server.start()
    bus = await connect(server.url, name="aim-watcher")
    await ensure_streams(bus, max_bytes=1 << 26)
    with pytest.raises(StreamsRejected, match=r"AIM_HISTORY: .*max_bytes"):
        await ensure_history(bus, max_bytes=1 << 60)
    account = await api(await bus.session(), "INFO")
    assert account["streams"] == 2
    await bus.close()
    await server.kill()


async def test_newest_messages_are_looked_up_as_of_a_time(bare_bus: Bus) -> None:
    await ensure_history(bare_bus)
    await append(bare_bus, (version("a"), 0), (version("b"), 0))
    [_, b] = [item async for item in read_history(bare_bus, ALL)]
    assert isinstance(b, Event)
    await append(bare_bus, (version("a", 2), 1))
    pattern = subjects.history_in("ml", "AIMService")
    after = b.time + datetime.timedelta(microseconds=1)
    for before, expected in ((None, [2, 3]), (after, [1, 2]), (b.time, [1])):
        found = await read_newest(bare_bus, pattern, before)
        assert found is not None
        assert sorted(item.seq for item in found) == expected
    assert await read_newest(bare_bus, subjects.history_in("other")) == []
