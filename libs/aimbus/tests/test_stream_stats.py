"""What a person can see of the streams and of who reads them."""

import contextlib
from collections.abc import Callable

from aimbus import Bus, CaughtUp, ConsumerStats, follow, read_bus_stats
from aimbus.jetstream import api
from aimschema.messages import ObjectChanged
from aimschema.subjects import ALL


async def test_a_server_without_streams_has_room_and_nothing_else(bare_bus: Bus) -> None:
    found = await read_bus_stats(bare_bus)
    assert (found.log, found.state, found.readers, found.used_bytes) == (None, None, (), 0)


async def test_each_reader_has_a_name_and_a_lag(
    bus: Bus, pod: Callable[..., ObjectChanged]
) -> None:
    await bus.publisher.publish(pod("a"))
    async with contextlib.aclosing(follow(bus, [ALL])) as items:
        async for item in items:
            if isinstance(item, CaughtUp):
                break
        found = await read_bus_stats(bus)
    assert found.readers == (ConsumerStats("aim-watcher", "AIM_STATE", 0),)
    assert found.log is not None
    assert found.state is not None
    assert (found.log.messages, found.log.max_bytes, found.log.max_age_s, found.log.lag) == (
        1,
        1 << 30,
        7 * 86_400,
        None,
    )
    assert (found.state.messages, found.state.max_bytes, found.state.last_seq, found.state.lag) == (
        1,
        1 << 30,
        1,
        0,
    )


async def test_more_readers_than_fit_a_page_are_all_counted(bus: Bus) -> None:
    for number in range(260):
        config = {
            "name": f"r{number}",
            "mem_storage": True,
            "ack_policy": "none",
            "deliver_policy": "new",
        }
        await api(
            await bus.session(),
            f"CONSUMER.CREATE.AIM_STATE.r{number}",
            {"stream_name": "AIM_STATE", "config": config, "action": "create"},
        )
    assert len((await read_bus_stats(bus)).readers) == 260
