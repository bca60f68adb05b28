"""What `aimctl dead` lists, and what trying again does to the bus."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from aimbus import Bus, Event, NatsServer, Undecodable, connect, ensure_streams, read_log
from aimctl.commands.dead_letters import retry_dead_letters, show
from aimctl.dead_letters import retry, unhandled_dead_letters
from aimctl.output.console import PlainConsole
from aimschema.messages import (
    MAX_DEAD_LETTER_DATA_BYTES,
    DeadLetter,
    ObjectChanged,
    encode,
    subject_of,
)

POD = ObjectChanged(
    kind="Pod",
    namespace="ml",
    name="a",
    uid="u",
    resource_version="5",
    object={"metadata": {"name": "a"}},
)
SUBJECT = subject_of(POD)
MAX_BYTES = 1 << 26
WORK = DeadLetter(
    service="cacher", kind="ModelCache", namespace="ml", name="c", error="KeyError('x')", attempts=5
)


def unreadable(service: str, data: bytes, seq: int, subject: str = SUBJECT) -> DeadLetter:
    stored = data if len(data) <= MAX_DEAD_LETTER_DATA_BYTES else b""
    about = (
        {"kind": "Pod", "namespace": "ml", "name": "a"}
        if subject == SUBJECT
        else {"kind": "", "name": ""}
    )
    return DeadLetter(
        service=service,
        error="torn",
        attempts=1,
        subject=subject,
        seq=seq,
        data=stored,
        size_bytes=len(data),
        **about,  # type: ignore[arg-type]
    )


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


async def test_dead_letters_are_listed_with_subject_and_sequence(
    bus: Bus, console: PlainConsole
) -> None:
    at = await bus.publisher.publish(WORK)
    await bus.publisher.publish(unreadable("router", b"{", 7))
    await bus.publisher.publish(unreadable("router", b"{", 8, "aim.object.x.y"))
    await level(bus)
    show(await unhandled_dead_letters(bus), console, "json")
    work, object_, nonsense = json.loads(text(console))
    assert (work["service"], work["what"], work["error"], work["seq"]) == (
        "cacher",
        "ModelCache/ml/c",
        "KeyError('x')",
        at,
    )
    assert work["subject"] == "aim.dead.cacher.ModelCache.ml.c"
    assert (object_["what"], object_["subject"], object_["seq"]) == (
        "unreadable message on Pod/ml/a",
        SUBJECT,
        7,
    )
    assert (nonsense["what"], nonsense["subject"], nonsense["seq"]) == (
        "unreadable message",
        "aim.object.x.y",
        8,
    )


async def test_without_dead_letters_it_prints_so(bus: Bus, console: PlainConsole) -> None:
    show(await unhandled_dead_letters(bus), console, "text")
    assert text(console) == "no dead letters\n"


async def test_a_message_is_republished_once_for_both_dead_letters(
    bus: Bus, console: PlainConsole
) -> None:
    data = b"x" * (MAX_DEAD_LETTER_DATA_BYTES + 1)
    seq = await bus.publisher.resend(SUBJECT, data, {"mine": "1"})
    for service in ("router", "deployer"):
        await bus.publisher.publish(unreadable(service, data, seq))
    await level(bus)
    assert await retry_dead_letters([SUBJECT], console)
    sent = [item for item in await log(bus, SUBJECT) if isinstance(item, Undecodable)]
    assert [(item.data, item.headers["mine"]) for item in sent] == [(data, "1")] * 2
    await level(bus)
    assert await unhandled_dead_letters(bus) == []


FORGED = encode(POD)
"""What the key of a service that was taken over would like the operator's key to send."""


@pytest.mark.parametrize(
    ("subject", "at", "printed"),
    [
        pytest.param(SUBJECT, 1, "sent again as", id="the-message-there-is-another"),
        pytest.param(SUBJECT, 2, "can be read", id="the-message-there-can-be-read"),
        pytest.param(
            SUBJECT, 3, "is not in AIM_LOG any more", id="the-message-there-is-on-another-subject"
        ),
        pytest.param(SUBJECT, 7, "is not in AIM_LOG any more", id="there-never-was-such-a-message"),
        pytest.param(SUBJECT, -1, "is not in AIM_LOG any more", id="a-place-that-no-log-has"),
        pytest.param(
            "aim.object.Pod.ml.*", 1, "is not in AIM_LOG any more", id="a-pattern-of-many-subjects"
        ),
        pytest.param("aim.object.>", 1, "is not in AIM_LOG any more", id="a-pattern-of-all"),
        pytest.param("aim.object.Pod ml", 1, "is not in AIM_LOG any more", id="no-subject"),
        pytest.param(
            "$JS.API.STREAM.DELETE.AIM_LOG",
            1,
            "is not in AIM_LOG any more",
            id="a-request-to-the-server",
        ),
    ],
)
async def test_the_content_of_a_dead_letter_is_never_sent(
    bus: Bus, console: PlainConsole, subject: str, at: int, printed: str
) -> None:
    torn = await bus.publisher.resend(SUBJECT, b"{", {})
    assert await bus.publisher.publish(structs.replace(POD, resource_version="6")) == torn + 1
    await bus.publisher.resend("aim.object.Pod.ml.b", b"{", {})
    await bus.publisher.publish(unreadable("router", FORGED, at, subject))
    await level(bus)
    assert await retry(bus, await unhandled_dead_letters(bus), console) == (
        "AIM_LOG" not in printed
    )
    assert printed in text(console)
    stored = await log(bus, "aim.object.>")
    assert [item.data for item in stored if isinstance(item, Undecodable)] == [b"{", b"{"] + [
        b"{"
    ] * (at == torn and subject == SUBJECT)
    assert len([item for item in stored if isinstance(item, Event)]) == 1
    await level(bus)
    assert await unhandled_dead_letters(bus) == []


async def test_a_message_with_a_subject_too_long_to_send_is_named(
    bus: Bus, console: PlainConsole
) -> None:
    subject = "aim.object.Pod.ml." + "x" * 3000
    session = await bus.session()
    await session.request(subject, b"{")
    await bus.publisher.publish(unreadable("router", b"{", 1, subject))
    await level(bus)
    assert await retry(bus, await unhandled_dead_letters(bus), console)
    assert "too large to be sent again" in text(console)


async def test_for_work_the_handled_dead_letter_is_published(
    bus: Bus, console: PlainConsole
) -> None:
    await bus.publisher.publish(WORK)
    await level(bus)
    assert await retry_dead_letters(None, console)
    last = (await log(bus, "aim.dead.>"))[-1]
    assert isinstance(last, Event)
    assert isinstance(last.message, DeadLetter)
    assert last.message.handled
    assert "cacher looks at ModelCache/ml/c again" in text(console)
    await level(bus)
    assert await unhandled_dead_letters(bus) == []


async def test_a_subject_without_a_dead_letter_is_named(bus: Bus, console: PlainConsole) -> None:
    with pytest.raises(RuntimeError, match=r"no dead letter on aim\.object\.Pod\.ml\.b"):
        await retry_dead_letters(["aim.object.Pod.ml.b"], console)
