"""Publishing: order, repetition, size, and a server that dies under it."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable

import pytest

from aimbus import (
    Bus,
    Event,
    NatsServer,
    OversizedMessage,
    Undecodable,
    connect,
    ensure_streams,
    follow_live,
    read_log,
)
from aimbus.envelope import headers_for
from aimbus.jetstream import api, stream_info
from aimschema import subjects
from aimschema.messages import ObjectChanged, ObjectDeleted, Progress, encode, subject_of
from aimschema.resources import Key

Pod = Callable[..., ObjectChanged]


async def events(log: AsyncGenerator[Event | Undecodable, None]) -> list[Event]:
    return [item async for item in log if isinstance(item, Event)]


def version(event: Event) -> int:
    assert isinstance(event.message, ObjectChanged)
    return int(event.message.resource_version)


async def test_the_log_has_cause_source_and_trace(bus: Bus, pod: Pod) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    first = await bus.publisher.publish(pod("a"))
    second = await bus.publisher.publish(pod("b.c"), cause=[first], traceparent=trace)
    [a, b] = await events(read_log(bus, [subjects.ALL]))
    assert (a.seq, a.subject, a.message, a.cause, a.source) == (
        first,
        "aim.object.Pod.ml.a",
        pod("a"),
        (),
        "aim-watcher",
    )
    assert (b.seq, b.subject, b.message, b.cause, b.traceparent) == (
        second,
        "aim.object.Pod.ml.b_c",
        pod("b.c"),
        (first,),
        trace,
    )
    assert a.time <= b.time
    assert a.time.utcoffset() is not None


async def test_one_subject_is_stored_in_the_order_of_the_calls(bus: Bus, pod: Pod) -> None:
    messages = [pod(name, version) for version in range(100) for name in ("a", "b", "c")]
    await asyncio.gather(*(bus.publisher.publish(message) for message in messages))
    for name in ("a", "b", "c"):
        stored = await events(read_log(bus, [subjects.of_object(Key("Pod", "ml", name))]))
        assert [version(event) for event in stored] == list(range(100))


async def test_who_gives_up_waiting_does_not_hold_up_the_next(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    session = await bus.session()
    await server.kill()
    await session.ended
    first, second, third = (
        asyncio.create_task(bus.publisher.publish(pod("a", version))) for version in (1, 2, 3)
    )
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await server.start()
    await third
    assert [version(event) for event in await events(read_log(bus, [subjects.ALL]))] == [3]


async def test_saying_the_same_again_gives_the_first_sequence(bus: Bus, pod: Pod) -> None:
    first = await bus.publisher.publish(pod("a"))
    await bus.publisher.publish(pod("b"))
    assert await bus.publisher.publish(pod("a")) == first
    assert len(await events(read_log(bus, [subjects.ALL]))) == 2


async def test_a_too_long_subject_is_rejected_without_disconnecting(bus: Bus, pod: Pod) -> None:
    session = await bus.session()
    with pytest.raises(OversizedMessage) as raised:
        await bus.publisher.publish(pod("x" * 4060))
    assert len(str(raised.value)) < 4000
    await bus.publisher.publish(pod("a"))
    assert not session.ended.done()


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_a_reused_id_does_not_lose_the_message(bus: Bus, pod: Pod, many: bool) -> None:
    session = await bus.session()
    for coming in (1, 2):
        await session.request(
            "aim.action.router.AIMService.ml.x", b"{", {"Nats-Msg-Id": f"a:{coming}"}
        )
    messages = [pod("a", 1), pod("b", 1), pod("a", 2)]
    if many:
        sequences = await bus.publisher.publish_many(messages)
    else:
        sequences = [await bus.publisher.publish(message) for message in messages]
    stored = await events(read_log(bus, ["aim.object.>"]))
    assert sorted(sequences) == [event.seq for event in stored]
    assert sorted((event.subject, version(event)) for event in stored) == [
        ("aim.object.Pod.ml.a", 1),
        ("aim.object.Pod.ml.a", 2),
        ("aim.object.Pod.ml.b", 1),
    ]


async def test_what_was_removed_from_the_log_is_not_taken_for_stored(bus: Bus, pod: Pod) -> None:
    first = await bus.publisher.publish(pod("a"))
    await api(await bus.session(), "STREAM.MSG.DELETE.AIM_LOG", {"seq": first})
    assert await bus.publisher.publish(pod("a")) > first
    assert len(await events(read_log(bus, [subjects.ALL]))) == 1


async def test_a_delete_is_stored_with_the_logs_age_to_live(bus: Bus) -> None:
    deleted = ObjectDeleted(
        kind="Pod", namespace="ml", name="a", uid="a", resource_version="2", object={"metadata": {}}
    )
    await bus.publisher.publish(deleted)
    [event] = await events(read_log(bus, [subjects.ALL]))
    assert event.message == deleted
    stored = await api(
        await bus.session(), "STREAM.MSG.GET.AIM_LOG", {"last_by_subj": "aim.object.Pod.ml.a"}
    )
    assert b"Nats-TTL: 604800\r\n" in base64.b64decode(stored["message"]["hdrs"])


async def test_an_oversized_message_is_rejected_without_disconnect(bus: Bus, pod: Pod) -> None:
    session = await bus.session()
    with pytest.raises(OversizedMessage) as raised:
        await bus.publisher.publish(pod("a", spec="x" * session.max_payload_bytes))
    assert raised.value.size_bytes > raised.value.limit_bytes
    assert await bus.publisher.publish(pod("a", spec="x" * (session.max_payload_bytes - 8192))) == 1
    assert not session.ended.done()


async def test_progress_reaches_who_listens_and_is_not_stored(bus: Bus) -> None:
    progress = Progress(
        kind="ModelCache", namespace="ml", name="c", phase="download", bytes=1, total=2
    )
    live = follow_live(bus, "aimlive.progress.ModelCache.ml.*")
    heard = asyncio.create_task(anext(live))
    await asyncio.sleep(0)
    await (await bus.session()).client.flush()
    await bus.publisher.publish_live(progress)
    async with asyncio.timeout(5):
        assert await heard == progress
    await live.aclose()
    with pytest.raises(ValueError, match="publish_live"):
        await bus.publisher.publish(progress)
    assert await events(read_log(bus, [subjects.ALL])) == []


async def test_publishing_waits_for_the_stream_to_be_made(bare_bus: Bus, pod: Pod) -> None:
    waiting = asyncio.create_task(bare_bus.publisher.publish(pod("a")))
    await ensure_streams(bare_bus)
    async with asyncio.timeout(5):
        assert await waiting == 1


async def test_publishing_goes_on_over_a_client_that_closed_itself(bus: Bus, pod: Pod) -> None:
    """Also while it is closing: it rejects them at once then, and trying again at once would never
    let it finish."""
    session = await bus.session()
    closing = asyncio.create_task(session.client.close())
    while not session.client.is_closed:  # noqa: ASYNC110 - the moment wanted is the one before any event
        await asyncio.sleep(0)
    assert not session.ended.done()
    assert await bus.publisher.publish(pod("a")) == 1
    await closing
    assert (await bus.session()).client is not session.client


async def test_a_killed_server_loses_and_repeats_nothing(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    messages = [pod(f"p{number % 500}", number) for number in range(5_000)]
    acked = 0

    async def publish(message: ObjectChanged) -> int:
        nonlocal acked
        seq = await bus.publisher.publish(message)
        acked += 1
        for at in kills:
            if acked == at:
                reached[at].set()
        return seq

    kills = (1_000, 3_000)
    reached = {at: asyncio.Event() for at in kills}
    load = asyncio.gather(*(publish(message) for message in messages))
    for at in kills:
        await reached[at].wait()
        await server.kill()
        await server.start()
    sequences = await load

    stored = await events(read_log(bus, [subjects.objects("Pod")]))
    assert sorted(version(event) for event in stored) == list(range(5_000))
    assert sorted(sequences) == [event.seq for event in stored]
    last: dict[str, int] = {}
    for event in stored:
        assert last.get(event.subject, -1) < version(event)
        last[event.subject] = version(event)


async def test_two_publishers_saying_the_same_is_one_message(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    other = await connect(server.url, name="standby")
    sequences = await asyncio.gather(
        *(
            publisher.publish(pod(f"p{n}"))
            for n in range(50)
            for publisher in (bus.publisher, other.publisher)
        )
    )
    await other.close()
    assert len(set(sequences)) == 50
    info = await stream_info(await bus.session(), "AIM_LOG")
    assert info is not None
    assert info["state"]["messages"] == 50


async def test_a_retry_after_a_lost_acknowledgement_is_one_message(bus: Bus, pod: Pod) -> None:
    """The stream has it, the publisher does not know: what it sends again has the same id."""
    message = pod("a")
    session = await bus.session()
    headers = headers_for(message, source="aim-watcher")
    await session.send(subject_of(message), encode(message), headers)
    await session.client.flush()
    assert await bus.publisher.publish(message) == 1
    assert len(await events(read_log(bus, [subjects.ALL]))) == 1


async def test_a_batch_is_stored_in_order_beside_single_messages(bus: Bus, pod: Pod) -> None:
    """Two batches share subjects with each other and with single messages, some of which say
    what the batch says too."""
    many = [pod(f"p{number % 700}", number) for number in range(1_400)]
    stored_before = await bus.publisher.publish(many[3])
    batches = asyncio.gather(
        bus.publisher.publish_many(many), bus.publisher.publish_many(many[::-1][:10])
    )
    singles = asyncio.gather(*(bus.publisher.publish(message) for message in many[:5]))
    sequences, _ = await batches
    again = await singles
    assert sequences[3] == stored_before
    assert again == sequences[:5]
    stored = {event.seq: event.message for event in await events(read_log(bus, [subjects.ALL]))}
    assert len(stored) == 1_400
    assert [stored[seq] for seq in sequences] == many


async def test_one_oversized_message_keeps_the_others_from_being_sent(bus: Bus, pod: Pod) -> None:
    with pytest.raises(OversizedMessage):
        await bus.publisher.publish_many([pod("a"), pod("b", spec="x" * (1 << 20))])
    assert await events(read_log(bus, [subjects.ALL])) == []


async def test_a_stream_without_batches_stores_many_at_once(bare_bus: Bus, pod: Pod) -> None:
    await api(
        await bare_bus.session(),
        "STREAM.CREATE.AIM_LOG",
        {"name": "AIM_LOG", "subjects": ["aim.>"]},
    )
    assert await bare_bus.publisher.publish_many([pod("a"), pod("a", 2), pod("b")]) in (
        [1, 2, 3],
        [1, 3, 2],
    )


async def test_a_server_killed_in_a_batch_loses_and_repeats_nothing(
    server: NatsServer, bus: Bus, pod: Pod
) -> None:
    messages = [pod(f"p{number}", number) for number in range(10_000)]
    load = asyncio.create_task(bus.publisher.publish_many(messages))
    for at in (1_000, 3_000, 6_000):
        while not load.done() and await last_seq(bus) < at:  # noqa: ASYNC110 - the server sends no progress
            await asyncio.sleep(0.005)
        await server.kill()
        await server.start()
    sequences = await load
    stored = await events(read_log(bus, [subjects.objects("Pod")]))
    assert sorted(version(event) for event in stored) == list(range(10_000))
    assert sequences == [event.seq for event in sorted(stored, key=version)]


async def last_seq(bus: Bus) -> int:
    info = await stream_info(await bus.session(), "AIM_LOG")
    assert info is not None
    return int(info["state"]["last_seq"])


async def test_what_cannot_be_read_is_sent_again_as_it_was(bus: Bus) -> None:
    headers = {"ce-type": "aim.object.changed.v9", "Nats-Msg-Id": "x"}
    for expected in (1, 2):
        assert await bus.publisher.resend("aim.object.Pod.ml.a", b"{", headers) == expected
    [first, second] = [item async for item in read_log(bus, [subjects.ALL])]
    assert isinstance(first, Undecodable)
    assert isinstance(second, Undecodable)
    assert (second.subject, second.data, second.headers["ce-type"]) == (
        "aim.object.Pod.ml.a",
        b"{",
        "aim.object.changed.v9",
    )


async def test_what_was_hidden_can_be_republished(bus: Bus, pod: Pod) -> None:
    await bus.publisher.publish(pod("a"))
    hiding = await bus.publisher.resend("aim.object.Pod.ml.a", b"{", {})
    assert await bus.publisher.publish(pod("a")) == 1
    assert await bus.publisher.publish(pod("a"), supersedes_seq=hiding) == 3
    assert await bus.publisher.publish(pod("a"), supersedes_seq=hiding) == 3
