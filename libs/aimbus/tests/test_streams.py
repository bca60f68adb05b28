"""The two streams: created, repaired, rejected."""

import asyncio
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from aimbus import (
    Bus,
    Level,
    NatsServer,
    Streams,
    StreamsRejected,
    ensure_streams,
    maintain_streams,
)
from aimbus.jetstream import SECOND_NS, api, stream_info
from aimschema.messages import KindSynced, ObjectChanged

Pod = Callable[..., ObjectChanged]


async def config_of(bus: Bus, stream: str) -> dict[str, Any]:
    info = await stream_info(await bus.session(), stream)
    assert info is not None
    config: dict[str, Any] = info["config"]
    return config


async def stored(bus: Bus, stream: str) -> set[str]:
    """Subjects of which the stream has a message."""
    info = await api(await bus.session(), f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
    return set(info["state"].get("subjects") or {})


async def test_they_are_made_once(bare_bus: Bus) -> None:
    assert await ensure_streams(bare_bus) == Streams(log_made=True, state_made=True)
    assert await ensure_streams(bare_bus) == Streams(log_made=False, state_made=False)


async def test_the_log_lasts_a_week_and_dedups_for_ten_minutes(bus: Bus) -> None:
    config = await config_of(bus, "AIM_LOG")
    assert config["subjects"] == ["aim.>"]
    assert config["max_age"] == 7 * 24 * 3600 * SECOND_NS
    assert config["max_bytes"] == 1 << 30
    assert config["duplicate_window"] == 600 * SECOND_NS
    assert (
        config["compression"],
        config["discard"],
        config["storage"],
        config["allow_msg_ttl"],
    ) == ("s2", "old", "file", True)


async def test_the_state_is_a_mirror_that_keeps_the_latest_for_ever(bus: Bus) -> None:
    config = await config_of(bus, "AIM_STATE")
    assert config["mirror"] == {"name": "AIM_LOG"}
    assert (config["max_msgs_per_subject"], config["max_age"], config["max_bytes"]) == (
        1,
        0,
        1 << 30,
    )
    assert (config["compression"], config["storage"], config["allow_msg_ttl"]) == (
        "s2",
        "file",
        True,
    )


async def test_a_changed_size_is_an_update_that_keeps_the_messages(bus: Bus, pod: Pod) -> None:
    await bus.publisher.publish(pod("a"))
    assert not (await ensure_streams(bus, max_bytes=1 << 28)).republish
    assert (await config_of(bus, "AIM_LOG"))["max_bytes"] == 1 << 28
    assert (await config_of(bus, "AIM_STATE"))["max_bytes"] == 1 << 28
    assert await stored(bus, "AIM_LOG") == {"aim.object.Pod.ml.a"}


async def test_the_state_has_room_for_all_objects_beside_a_short_log(
    bus: Bus,
) -> None:
    await ensure_streams(bus, max_bytes=1 << 20)
    assert [(await config_of(bus, stream))["max_bytes"] for stream in ("AIM_LOG", "AIM_STATE")] == [
        1 << 20,
        1 << 28,
    ]


async def test_a_state_without_bound_gets_one_and_keeps_messages(bus: Bus, pod: Pod) -> None:
    """As every version before had it."""
    await bus.publisher.publish(pod("a"))
    session = await bus.session()
    await api(
        session, "STREAM.UPDATE.AIM_STATE", {**(await config_of(bus, "AIM_STATE")), "max_bytes": -1}
    )
    assert not (await ensure_streams(bus)).republish
    assert (await config_of(bus, "AIM_STATE"))["max_bytes"] == 1 << 30
    assert await stored(bus, "AIM_STATE") == {"aim.object.Pod.ml.a"}


async def test_the_fill_level_is_reported_with_every_check(bus: Bus, pod: Pod) -> None:
    await bus.publisher.publish(pod("a"))
    levels: list[Level] = []
    await ensure_streams(bus, on_level=levels.append)
    info = await api(await bus.session(), "STREAM.INFO.AIM_STATE")
    assert levels[-1].full == info["state"]["bytes"] / (1 << 30) > 0


async def test_a_quiet_object_outlives_the_log_and_stays_deleted(bus: Bus, pod: Pod) -> None:
    """The two reasons for two streams, with the log's week shortened to one second."""
    session = await bus.session()
    for name in ("quiet", "gone"):
        await bus.publisher.publish(pod(name))
    reply = await session.request("aim.object.Pod.ml.gone", b"{}", {"Nats-TTL": "1"})
    assert b'"error"' not in reply.data
    await ensure_streams(bus)
    await api(
        session,
        "STREAM.UPDATE.AIM_LOG",
        {**await config_of(bus, "AIM_LOG"), "max_age": SECOND_NS, "duplicate_window": SECOND_NS},
    )
    async with asyncio.timeout(10):
        while await stored(bus, "AIM_LOG") or len(await stored(bus, "AIM_STATE")) > 1:  # noqa: ASYNC110 - the server has no event for an expiry
            await asyncio.sleep(0.1)
    assert await stored(bus, "AIM_STATE") == {"aim.object.Pod.ml.quiet"}


@pytest.mark.parametrize(
    "count_after",
    [pytest.param(0, id="log-behind"), pytest.param(5, id="log-grown-past-the-mirror")],
)
async def test_a_log_that_was_lost_takes_the_state_with_it(
    bus: Bus, pod: Pod, count_after: int
) -> None:
    await bus.publisher.publish(pod("old"))
    await bus.publisher.publish(KindSynced(kind="Pod", resource_version="1", objects=1))
    await ensure_streams(bus)
    session = await bus.session()
    log = await config_of(bus, "AIM_LOG")
    await api(session, "STREAM.DELETE.AIM_LOG")
    if count_after:
        await api(session, "STREAM.CREATE.AIM_LOG", log)
        for number in range(count_after):
            await bus.publisher.publish(pod(f"new{number}"))
    assert (await ensure_streams(bus)).republish
    assert await stored(bus, "AIM_STATE") == {
        f"aim.object.Pod.ml.new{number}" for number in range(count_after)
    }


async def test_losing_the_files_of_the_log_loses_the_state_too(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    for number in range(3):
        await bus.publisher.publish(pod(f"old{number}"))
    await ensure_streams(bus)
    await server.kill()
    shutil.rmtree(server.store_dir / "jetstream" / "$G" / "streams" / "AIM_LOG")
    await server.start()
    assert await ensure_streams(bus) == Streams(log_made=True, state_made=True)
    assert await stored(bus, "AIM_STATE") == set()
    assert await bus.publisher.publish(pod("old0")) == 1


async def test_a_new_state_on_an_old_log_has_no_old_markers(bus: Bus, pod: Pod) -> None:
    """What is older than the log is missing in it, so it must not look complete."""
    await bus.publisher.publish(pod("a"))
    await bus.publisher.publish(KindSynced(kind="Pod", resource_version="1", objects=1))
    await api(await bus.session(), "STREAM.DELETE.AIM_STATE")
    assert await ensure_streams(bus) == Streams(log_made=False, state_made=True)
    assert await stored(bus, "AIM_STATE") == {"aim.object.Pod.ml.a"}


async def test_a_state_that_is_no_mirror_is_recreated(bare_bus: Bus, pod: Pod) -> None:
    await api(
        await bare_bus.session(),
        "STREAM.CREATE.AIM_STATE",
        {"name": "AIM_STATE", "subjects": ["other"], "storage": "file"},
    )
    assert (await ensure_streams(bare_bus)).republish
    assert (await config_of(bare_bus, "AIM_STATE"))["mirror"] == {"name": "AIM_LOG"}


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        pytest.param(
            {"max_bytes": 1 << 60}, "max_bytes 1152921504606846976", id="more-than-the-disk"
        ),
        pytest.param({"replicas": 3}, "3 replicas", id="replicas-without-a-cluster"),
    ],
)
async def test_what_the_server_cannot_give_is_an_error(
    bare_bus: Bus, limits: dict[str, Any], text: str
) -> None:
    with pytest.raises(StreamsRejected, match=text):
        await ensure_streams(bare_bus, **limits)


async def test_maintaining_them_requests_republishing(server: NatsServer, bus: Bus) -> None:
    maintained = maintain_streams(bus)
    async with asyncio.timeout(20):
        assert not (await anext(maintained)).republish
        again = asyncio.ensure_future(anext(maintained))
        await server.kill()
        server.store_dir = server.store_dir.with_name("empty")
        await server.start()
        assert (await again).republish
    await maintained.aclose()
