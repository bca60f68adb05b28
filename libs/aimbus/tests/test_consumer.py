"""Following the state: load, catch up, live, and everything that makes it begin again."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import structlog

from aimbus import (
    Bus,
    CaughtUp,
    Event,
    Loading,
    NatsServer,
    Stalled,
    Undecodable,
    connect,
    ensure_streams,
    follow,
    read_log,
)
from aimbus.jetstream import api
from aimschema import subjects
from aimschema.messages import KindSynced, ObjectChanged, ObjectDeleted

Pod = Callable[..., ObjectChanged]
Follower = AsyncGenerator[Loading | Event | Undecodable | CaughtUp | Stalled, None]
PODS = [subjects.objects("Pod"), subjects.of_synced("Pod")]


@asynccontextmanager
async def following(bus: Bus, filters: Sequence[str] = PODS) -> AsyncIterator[Follower]:
    follower = follow(bus, filters)
    try:
        async with asyncio.timeout(20):
            yield follower
    finally:
        await follower.aclose()


async def load(follower: Follower) -> list[Event | Undecodable]:
    """What comes between the next Loading and CaughtUp."""
    loaded: list[Event | Undecodable] = []
    async for item in follower:
        match item:
            case Loading():
                loaded = []
            case CaughtUp():
                return loaded
            case Stalled(why=why):
                raise AssertionError(why)
            case _:
                loaded.append(item)
    raise AssertionError("a follower never ends")


def names(items: list[Event | Undecodable]) -> list[str]:
    return [
        item.message.name
        for item in items
        if isinstance(item, Event) and not isinstance(item.message, KindSynced)
    ]


async def test_an_empty_stream_is_caught_up_at_once_and_then_live(bus: Bus, pod: Pod) -> None:
    async with following(bus) as follower:
        assert await anext(follower) == Loading()
        assert await anext(follower) == CaughtUp()
        seq = await bus.publisher.publish(pod("a"), cause=[7])
        event = await anext(follower)
        assert isinstance(event, Event)
        assert (event.seq, event.message, event.cause, event.source) == (
            seq,
            pod("a"),
            (7,),
            "aim-watcher",
        )


async def test_a_load_has_the_latest_of_every_subject(bus: Bus, pod: Pod) -> None:
    for version in range(3):
        await bus.publisher.publish(pod("a", version))
        await bus.publisher.publish(pod("b", version))
    last = await bus.publisher.publish(KindSynced(kind="Pod", resource_version="3", objects=2))
    await ensure_streams(bus)
    async with following(bus) as follower:
        loaded = await load(follower)
        assert [item.message for item in loaded[:2] if isinstance(item, Event)] == [
            pod("a", 2),
            pod("b", 2),
        ]
        assert [item.seq for item in loaded] == [last - 2, last - 1, last]


async def test_only_what_the_filters_name_is_followed(bus: Bus, pod: Pod) -> None:
    await bus.publisher.publish(pod("a"))
    await bus.publisher.publish(
        ObjectChanged(
            kind="Job",
            namespace="ml",
            name="j",
            uid="j",
            resource_version="1",
            object={"metadata": {}},
        )
    )
    await ensure_streams(bus)
    async with following(bus, [subjects.objects("Job")]) as follower:
        assert names(await load(follower)) == ["j"]


async def test_a_delete_takes_the_place_of_the_object(bus: Bus, pod: Pod) -> None:
    await bus.publisher.publish(pod("a"))
    deleted = ObjectDeleted(
        kind="Pod", namespace="ml", name="a", uid="a", resource_version="2", object={"metadata": {}}
    )
    await bus.publisher.publish(deleted)
    await ensure_streams(bus)
    async with following(bus) as follower:
        assert [item.message for item in await load(follower) if isinstance(item, Event)] == [
            deleted
        ]


async def test_an_unreadable_message_does_not_end_the_following(bus: Bus, pod: Pod) -> None:
    await (await bus.session()).request(
        "aim.object.Pod.ml.new", b'{"type":"aim.object.changed.v2"}', {"ce-id": "x"}
    )
    await bus.publisher.publish(pod("a"))
    await ensure_streams(bus)
    async with following(bus) as follower:
        unreadable, event = await load(follower)
        assert isinstance(unreadable, Undecodable)
        assert (unreadable.seq, unreadable.subject, unreadable.headers["ce-id"]) == (
            1,
            "aim.object.Pod.ml.new",
            "x",
        )
        assert names([event]) == ["a"]


async def test_a_load_waits_until_the_mirror_is_level(bus: Bus, pod: Pod) -> None:
    """A mirror that misses acknowledged messages, as after a crash, would make their objects look
    deleted."""
    await bus.publisher.publish(pod("a"))
    session = await bus.session()
    await api(session, "STREAM.DELETE.AIM_STATE")
    await api(
        session,
        "STREAM.CREATE.AIM_STATE",
        {"name": "AIM_STATE", "subjects": ["nothing"], "storage": "memory"},
    )
    async with (
        following(bus) as follower,
        session.subscription("$JS.API.STREAM.INFO.AIM_STATE") as questions,
    ):
        first = asyncio.create_task(anext(follower))
        await questions.get()
        await ensure_streams(bus)
        assert await first == Loading()
        assert names(await load(follower)) == ["a"]


async def test_following_waits_until_the_watcher_has_made_the_streams(
    server: NatsServer, bare_bus: Bus, pod: Pod
) -> None:
    async with following(bare_bus) as follower:
        first = asyncio.create_task(anext(follower))
        watcher = await connect(server.url, name="watcher")
        await ensure_streams(watcher)
        assert await first == Loading()
        await watcher.close()


async def test_after_a_kill_everything_is_loaded_again(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    await bus.publisher.publish(pod("a"))
    await ensure_streams(bus)
    async with following(bus) as follower:
        assert names(await load(follower)) == ["a"]
        await server.kill()
        await server.start()
        await bus.publisher.publish(pod("b"))
        await ensure_streams(bus)
        assert await anext(follower) == Loading()
        missing = {"a", "b"}
        async for item in follower:
            missing -= set(names([item] if isinstance(item, Event) else []))
            if not missing:
                break


async def test_a_wiped_store_loads_empty_and_without_marker(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    await bus.publisher.publish(pod("a"))
    await bus.publisher.publish(KindSynced(kind="Pod", resource_version="1", objects=1))
    await ensure_streams(bus)
    async with following(bus) as follower:
        assert len(await load(follower)) == 2
        await server.kill()
        server.store_dir = server.store_dir.with_name("empty")
        await server.start()
        made = await ensure_streams(bus)
        assert made.republish
        assert await load(follower) == []
        await bus.publisher.publish(pod("a"))
        event = await anext(follower)
        assert isinstance(event, Event)
        assert event.seq == 1


@pytest.mark.parametrize(
    "what",
    [pytest.param("STREAM.DELETE.AIM_STATE", id="stream"), pytest.param("CONSUMER", id="consumer")],
)
async def test_a_stream_or_consumer_that_goes_means_a_new_load(
    bus: Bus, pod: Pod, what: str
) -> None:
    await bus.publisher.publish(pod("a"))
    await ensure_streams(bus)
    session = await bus.session()
    async with following(bus) as follower:
        assert names(await load(follower)) == ["a"]
        if what == "CONSUMER":
            [follow] = (await api(session, "CONSUMER.NAMES.AIM_STATE"))["consumers"]
            await api(session, f"CONSUMER.DELETE.AIM_STATE.{follow}")
        else:
            await api(session, what)
            await ensure_streams(bus)
        assert await anext(follower) == Loading()
        assert names(await load(follower)) == ["a"]


async def test_a_closed_client_means_a_new_load_on_a_new_one(bus: Bus, pod: Pod) -> None:
    await bus.publisher.publish(pod("a"))
    await ensure_streams(bus)
    async with following(bus) as follower:
        await load(follower)
        await (await bus.session()).client.close()
        assert await anext(follower) == Loading()
        assert names(await load(follower)) == ["a"]


async def test_ten_thousand_subjects_are_loaded(bus: Bus, pod: Pod) -> None:
    await asyncio.gather(
        *(bus.publisher.publish(pod(f"p{number}", spec="x" * 500)) for number in range(10_000))
    )
    await ensure_streams(bus)
    async with following(bus) as follower:
        assert len(set(names(await load(follower)))) == 10_000


async def test_what_changes_while_it_loads_is_not_missed(bus: Bus, pod: Pod) -> None:
    """No key may be unseen at CaughtUp because it was changed between the creation of the
    consumer and its turn."""
    every = {f"p{number}" for number in range(2_000)}
    await asyncio.gather(*(bus.publisher.publish(pod(name)) for name in every))
    await ensure_streams(bus)
    async with following(bus) as follower:
        assert await anext(follower) == Loading()
        changes = asyncio.gather(
            *(
                bus.publisher.publish(message)
                for n in range(2_000)
                for message in (pod(f"new{n}"), pod(f"p{n}", 2))
            )
        )
        assert every <= set(names(await load(follower)))
        await changes


async def test_a_server_that_falls_silent_means_a_new_load(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    """The connection stands, heartbeats stay away."""
    await bus.publisher.publish(pod("a"))
    await ensure_streams(bus)
    assert server.pid is not None
    async with following(bus) as follower:
        await load(follower)
        again = asyncio.ensure_future(anext(follower))
        with structlog.testing.capture_logs() as lines:
            os.kill(server.pid, signal.SIGSTOP)
            try:
                while not lines:  # noqa: ASYNC110 - the log has no event
                    await asyncio.sleep(0.05)
            finally:
                os.kill(server.pid, signal.SIGCONT)
        assert "no heartbeat" in lines[0]["error"]
        assert await again == Loading()
        assert names(await load(follower)) == ["a"]


async def test_the_state_converges_whatever_was_killed(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    """Load, sweep and live events under a server that is killed twice, against what was
    published last."""
    state: dict[str, ObjectChanged] = {}
    right = {f"p{number}": pod(f"p{number}", 9) for number in range(200)}
    agrees = asyncio.Event()

    async def paint(follower: Follower) -> None:
        names_loaded: set[str] = set()
        async for item in follower:
            match item:
                case Loading():
                    names_loaded = set()
                case CaughtUp():
                    for name in state.keys() - names_loaded:
                        del state[name]
                case Event(message=ObjectChanged() as message):
                    names_loaded.add(message.name)
                    state[message.name] = message
            if state == right:
                agrees.set()

    async with following(bus) as follower:
        painting = asyncio.create_task(paint(follower))
        for version in (7, 8, 9):
            load = asyncio.gather(*(bus.publisher.publish(pod(name, version)) for name in right))
            if version < 9:
                await server.kill()
                await server.start()
            await load
        await agrees.wait()
        painting.cancel()
        await asyncio.wait([painting])


async def test_the_log_is_read_from_a_sequence_and_on_over_a_kill(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    for version in range(4):
        await bus.publisher.publish(pod("a", version))
    log = read_log(bus, [subjects.ALL], after_seq=2, follow=True)
    async with asyncio.timeout(20):
        assert [(await anext(log)).seq for _ in range(2)] == [3, 4]
        await server.kill()
        await server.start()
        await bus.publisher.publish(pod("a", 5))
        assert (await anext(log)).seq == 5
    await log.aclose()


@pytest.mark.parametrize(
    "filters",
    [
        pytest.param([subjects.ALL], id="everything"),
        pytest.param([subjects.objects("Job")], id="nothing"),
    ],
)
async def test_a_bounded_reading_of_the_log_ends(
    bare_bus: Bus, pod: Pod, filters: list[str]
) -> None:
    assert [item async for item in read_log(bare_bus, filters)] == []
    await ensure_streams(bare_bus)
    assert [item async for item in read_log(bare_bus, filters)] == []
    await bare_bus.publisher.publish(pod("a"))
    read = [item.seq async for item in read_log(bare_bus, filters)]
    assert read == ([1] if filters == [subjects.ALL] else [])
    assert [item async for item in read_log(bare_bus, filters, after_seq=1)] == []


async def put(server: NatsServer, subject: bytes, headers: bytes = b"") -> None:
    """Publish what the client of this project would not."""
    host, _, port = server.url.removeprefix("nats://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    line = (
        b"HPUB %s %d %d" % (subject, len(headers), len(headers) + 1)
        if headers
        else b"PUB %s 1" % subject
    )
    writer.write(line + b"\r\n" + headers + b"{\r\nPING\r\n")
    async with asyncio.timeout(5):
        while (await reader.readline()).strip() != b"PONG":
            pass
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        pytest.param(b"aim.object.Pod.ml.\xff", b"", id="subject-that-is-no-utf-8"),
        pytest.param(b"aim.object.Pod.\xc3\x28.\xff", b"", id="tokens-that-are-no-utf-8"),
        pytest.param(b"aim.object.Pod.ml." + b"x" * 4020, b"", id="subject-at-the-server-s-limit"),
        pytest.param(
            b"aim.object.Pod.ml.a", b"NATS/1.0\r\nx: \xff\xfe\r\n\r\n", id="header-that-is-no-utf-8"
        ),
        pytest.param(
            b"aim.object.Pod.ml.a", b"NATS/1.0\r\nno colon\r\n\r\n", id="header-without-a-colon"
        ),
        pytest.param(
            b"aim.object.Pod.ml.a", b"NATS/1.0\r\n: 1\r\n\r\n", id="header-without-a-name"
        ),
        pytest.param(b"aim.object.Pod.ml.a", b"garbage\r\n\r\n", id="headers-of-no-version"),
        pytest.param(
            b"aim.object.Pod.ml.a",
            b"NATS/1.0\r\nce-id: " + b'"' * 60_000 + b"\r\n\r\n",
            id="the-largest-header-that-is-stored",
        ),
        pytest.param(
            b"aim.object.Pod.ml.a",
            b"NATS/1.0 404 No Messages\r\n\r\n",
            id="a-status-of-the-server-s",
        ),
        pytest.param(
            b"aim.object.Pod.ml.a", b"NATS/1.0\r\nStatus: 409\r\n\r\n", id="a-status-as-a-header"
        ),
    ],
)
async def test_after_any_message_the_next_one_is_read(
    server: NatsServer, bus: Bus, pod: Pod, subject: bytes, headers: bytes
) -> None:
    await put(server, subject, headers)
    await bus.publisher.publish(pod("after"))
    await ensure_streams(bus)
    async with following(bus, ["aim.object.>"]) as follower:
        bad, good = await load(follower)
        assert isinstance(bad, Undecodable)
        assert good.subject == "aim.object.Pod.ml.after"
        await put(server, subject, headers)
        await bus.publisher.publish(pod("live"))
        assert isinstance(await anext(follower), Undecodable)
        assert (await anext(follower)).subject == "aim.object.Pod.ml.live"  # type: ignore[union-attr]


async def test_a_known_message_is_not_yielded(bus: Bus, pod: Pod) -> None:
    """It counts as delivered."""
    first = await bus.publisher.publish(pod("a"))
    second = await bus.publisher.publish(pod("b"))
    heard: list[tuple[int, int]] = []

    def is_known(seq: int, pending: int) -> bool:
        heard.append((seq, pending))
        return seq != first

    follower = follow(bus, PODS, is_known)
    async with asyncio.timeout(20), contextlib.aclosing(follower):
        assert names(await load(follower)) == ["a"]
        assert heard == [(first, 1), (second, 0)]
