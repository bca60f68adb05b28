"""What `aimctl dead` lists, and what trying again does to the bus."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aimbus import Bus, Event, NatsServer, Undecodable, connect, ensure_streams, read_log
from aimctl.console import PlainConsole
from aimctl.dead import letters, retry, retry_letters, show
from aimschema.messages import KEPT_BYTES, DeadLetter, ObjectChanged, encode, subject_of

POD = ObjectChanged(kind="Pod", namespace="ml", name="a", uid="u", resource_version="5", object={"metadata": {"name": "a"}})
SUBJECT = subject_of(POD)
MAX_BYTES = 1 << 26
WORK = DeadLetter(service="cacher", kind="ModelCache", namespace="ml", name="c", error="KeyError('x')", attempts=5)


def unreadable(service: str, data: bytes, seq: int, subject: str = SUBJECT) -> DeadLetter:
    kept = data if len(data) <= KEPT_BYTES else b""
    about = {"kind": "Pod", "namespace": "ml", "name": "a"} if subject == SUBJECT else {"kind": "", "name": ""}
    return DeadLetter(service=service, error="torn", attempts=1, subject=subject, seq=seq, data=kept, size_bytes=len(data), **about)  # type: ignore[arg-type]


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    server = NatsServer(tmp_path / "nats")
    monkeypatch.setenv("AIM_NATS_URL", await server.start())
    bus = await connect(server.url, name="test")
    await ensure_streams(bus, max_bytes=MAX_BYTES)
    yield bus
    await bus.close()
    await server.kill()


@pytest.fixture
def console() -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=200)


def text(console: PlainConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def level(bus: Bus) -> None:
    """AIM_STATE has what was published; a mirror is a moment behind."""
    await ensure_streams(bus, max_bytes=MAX_BYTES)


async def log(bus: Bus, subject: str) -> list[Event | Undecodable]:
    return [item async for item in read_log(bus, [subject])]


async def test_letters_are_listed_with_what_it_takes_to_find_the_message(bus: Bus, console: PlainConsole) -> None:
    at = await bus.publisher.publish(WORK)
    await bus.publisher.publish(unreadable("router", b"{", 7))
    await bus.publisher.publish(unreadable("router", b"{", 8, "aim.object.x.y"))
    await level(bus)
    show(await letters(bus), console, "json")
    work, object_, nonsense = json.loads(text(console))
    assert (work["service"], work["what"], work["error"], work["seq"]) == ("cacher", "ModelCache/ml/c", "KeyError('x')", at)
    assert work["subject"] == "aim.dead.cacher.ModelCache.ml.c"
    assert (object_["what"], object_["subject"], object_["seq"]) == ("unreadable message on Pod/ml/a", SUBJECT, 7)
    assert (nonsense["what"], nonsense["subject"], nonsense["seq"]) == ("unreadable message", "aim.object.x.y", 8)


async def test_without_letters_it_says_so(bus: Bus, console: PlainConsole) -> None:
    show(await letters(bus), console, "text")
    assert text(console) == "no dead letters\n"


async def test_a_message_that_can_be_read_by_now_is_sent_once_and_both_letters_go(bus: Bus, console: PlainConsole) -> None:
    for service in ("router", "deployer"):
        await bus.publisher.publish(unreadable(service, encode(POD), 7))
    await level(bus)
    assert await retry_letters([SUBJECT], console)
    [sent] = await log(bus, SUBJECT)
    assert isinstance(sent, Event)
    assert sent.message == POD
    await level(bus)
    assert await letters(bus) == []


async def test_a_message_too_large_for_its_letter_comes_from_the_log(bus: Bus, console: PlainConsole) -> None:
    data = b"x" * (KEPT_BYTES + 1)
    seq = await bus.publisher.resend(SUBJECT, data, {})
    await bus.publisher.publish(unreadable("router", data, seq))
    await bus.publisher.publish(unreadable("router", data, seq + 100, "aim.object.x.y"))
    await level(bus)
    assert not await retry(bus, await letters(bus), console)
    assert [item.data for item in await log(bus, SUBJECT) if isinstance(item, Undecodable)] == [data, data]
    await level(bus)
    assert [found.subject for found in await letters(bus)] == ["aim.object.x.y"]
    assert "AIM_LOG has dropped it" in text(console)


async def test_for_work_the_handled_letter_is_what_the_service_hears(bus: Bus, console: PlainConsole) -> None:
    await bus.publisher.publish(WORK)
    await level(bus)
    assert await retry_letters(None, console)
    last = (await log(bus, "aim.dead.>"))[-1]
    assert isinstance(last, Event)
    assert isinstance(last.message, DeadLetter)
    assert last.message.handled
    assert "cacher looks at ModelCache/ml/c again" in text(console)
    await level(bus)
    assert await letters(bus) == []


async def test_a_subject_without_a_letter_is_named(bus: Bus, console: PlainConsole) -> None:
    with pytest.raises(RuntimeError, match=r"no dead letter on aim\.object\.Pod\.ml\.b"):
        await retry_letters(["aim.object.Pod.ml.b"], console)
