"""Dead letters of messages with hostile content: each is sent, within bounds, and none ends its
service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aimbus import Bus, Event, Undecodable, read_log
from aimcontroller.dead_letters import ERROR_LENGTH, DeadLetters
from aimschema import subjects
from aimschema.messages import DeadLetter, ObjectChanged, encode

SUBJECT = "aim.object.Pod.ml.a"
KNOWN = ("ce-id", "ce-type", "ce-source", "ce-subject", "ce-time", "aim-cause", "traceparent")


def undecodable(
    seq: int,
    *,
    subject: str = SUBJECT,
    error: str = "torn",
    data: bytes = b"{",
    headers: dict[str, str] | None = None,
) -> Undecodable:
    return Undecodable(seq, subject, error, data, headers or {})


HOSTILE = {
    "a-header-of-1-mb-of-quotes": undecodable(1, headers={"ce-id": '"' * 1_000_000}),
    "a-thousand-headers": undecodable(
        1, headers={f"h{number}": '"' * 1000 for number in range(1000)}
    ),
    "every-known-header-at-its-longest": undecodable(
        1, headers=dict.fromkeys(KNOWN, '"' * 1_000_000)
    ),
    "an-error-of-1-mb": undecodable(1, error="x" * 1_000_000),
    "an-error-of-1-mb-of-escapes": undecodable(1, error="\x00" * 1_000_000),
    "a-subject-of-4040-characters": undecodable(1, subject="aim.object.Pod.ml." + "x" * 4022),
    "a-kind-of-4040-characters": undecodable(1, subject="aim.object." + "x" * 4025 + ".ml.a"),
    "a-report-s-subject-of-4040-characters": undecodable(
        1, subject="aim.report.Pod.ml." + "x" * 4015 + ".router"
    ),
    "a-dead-letter-s-subject-of-4040-characters": undecodable(
        1, subject="aim.dead.router.Pod.ml." + "x" * 4015
    ),
    "four-thousand-tokens": undecodable(1, subject="aim" + ".x" * 2000),
    "a-subject-that-is-no-ascii": undecodable(1, subject="aim.object.Pod.ml.�"),
    "the-largest-body-that-is-kept": undecodable(1, data=b"\xff" * (1 << 18)),
    "a-body-as-large-as-the-server-takes": undecodable(1, data=b"\xff" * 1_040_000),
    "text-that-is-no-utf-8": undecodable(1, error="\ud800", headers={"ce-id": "\ud800"}),
}


@asynccontextmanager
async def sending(bus: Bus) -> AsyncIterator[tuple[DeadLetters, asyncio.Task[None]]]:
    dead_letters = DeadLetters("router", bus)
    dead_letters.load_ended()
    task = asyncio.create_task(dead_letters.send())
    try:
        yield dead_letters, task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until_dead_letter_on(bus: Bus, seq: int) -> list[DeadLetter]:
    """All dead letters up to the one of the message `seq`."""
    found: list[DeadLetter] = []
    async with asyncio.timeout(20):
        async for item in read_log(bus, [subjects.dead_letters()], follow=True):
            assert isinstance(item, Event)
            assert isinstance(item.message, DeadLetter)
            found.append(item.message)
            if item.message.seq == seq:
                return found
    raise AssertionError("no such dead letter")


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_message_stops_the_dead_letters(
    watcher_bus: Bus, service_bus: Bus, name: str
) -> None:
    session = await service_bus.session()
    async with sending(service_bus) as (dead_letters, task):
        dead_letters.record_undecodable(HOSTILE[name])
        dead_letters.record_undecodable(undecodable(2))
        found = await until_dead_letter_on(watcher_bus, 2)
        dead_letters.record_undecodable(undecodable(3))
        found = await until_dead_letter_on(watcher_bus, 3)
        assert not task.done()
        assert not session.ended.done(), "the server ended the connection"
    assert {2, 3} <= {dead_letter.seq for dead_letter in found}
    assert {1, 2, 3} == {
        dead_letter.seq for dead_letter in found
    } or name == "text-that-is-no-utf-8"
    for dead_letter in found:
        assert len(dead_letter.error) <= ERROR_LENGTH
        assert sum(len(key) + len(value) for key, value in dead_letter.headers.items()) <= 8192


async def test_what_cannot_be_encoded_gets_a_dead_letter_too(
    watcher_bus: Bus, service_bus: Bus
) -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    message = ObjectChanged(
        kind="Pod", namespace="ml", name="a", uid="u", resource_version="1", object=deep
    )
    with pytest.raises(RecursionError):
        encode(message)
    await watcher_bus.publisher.publish(
        ObjectChanged(
            kind="Pod",
            namespace="ml",
            name="a",
            uid="u",
            resource_version="1",
            object={"metadata": {}},
        )
    )
    [event] = [item async for item in read_log(watcher_bus, [SUBJECT]) if isinstance(item, Event)]
    async with sending(service_bus) as (dead_letters, task):
        dead_letters.record_unprocessable(
            Event(event.seq, SUBJECT, message, event.time, (), ""), RuntimeError("x" * 1_000_000)
        )
        [dead_letter] = await until_dead_letter_on(watcher_bus, event.seq)
        assert not task.done()
    assert (dead_letter.subject, dead_letter.data) == (SUBJECT, b"")
