"""`aimctl dead`: lists dead letters, and retries what they are about.

1. A dead letter is listed until it is handled. A later message on the same subject marks it as
   handled.
2. An undecodable message is republished unchanged, under its own subject and a new id, once for all
   services that wrote a dead letter about it. It comes from AIM_LOG, where a client with permission
   for that subject stored it. The content of a dead letter is never sent: any client with the key
   of one service can write it. Nothing is sent that AIM_LOG no longer has, or that can be decoded.
   For failing work, the handled dead letter itself makes the service reconcile the object.
3. All dead letters are marked before any message is sent. If the retry fails as well, the marks
   must not hide the new dead letters.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from aimbus import (
    Bus,
    CaughtUp,
    Event,
    OversizedMessage,
    Undecodable,
    follow,
    read_log,
)
from aimctl.connect import WITHIN_S
from aimctl.output.console import PlainConsole
from aimschema import subjects
from aimschema.messages import DeadLetter, acknowledge, timestamp
from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class ListedDeadLetter:
    """A dead letter and its subject, `address`."""

    dead_letter: DeadLetter
    address: str
    seq: int
    time: datetime

    @property
    def subject(self) -> str:
        """What `retry` takes: the subject of the undecodable message, or of the dead letter."""
        return self.dead_letter.subject or self.address

    @property
    def what(self) -> str:
        dead_letter = self.dead_letter
        about = (
            str(Key(dead_letter.kind, dead_letter.namespace, dead_letter.name))
            if dead_letter.name
            else dead_letter.kind
        )
        return (
            " ".join(["unreadable message", *(["on", about] if about else [])])
            if dead_letter.subject
            else about
        )

    def row(self) -> dict[str, str | int]:
        dead_letter = self.dead_letter
        return {
            "when": timestamp(self.time),
            "service": dead_letter.service,
            "what": self.what,
            "error": dead_letter.error,
            "subject": self.subject,
            "seq": dead_letter.seq or self.seq,
        }


async def unhandled_dead_letters(bus: Bus) -> list[ListedDeadLetter]:
    """Dead letters that are not handled, oldest first. Raises RuntimeError without a stream to
    read."""
    latest: dict[str, ListedDeadLetter] = {}
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            contextlib.aclosing(follow(bus, [subjects.dead_letters()])) as items,
        ):
            async for item in items:
                if isinstance(item, CaughtUp):
                    break
                if isinstance(item, Event) and isinstance(item.message, DeadLetter):
                    latest[item.subject] = ListedDeadLetter(
                        item.message, item.subject, item.seq, item.time
                    )
    except TimeoutError:
        raise RuntimeError(
            "the NATS server has no stream AIM_STATE, or does not answer: is the watcher running?"
        ) from None
    return sorted(
        (found for found in latest.values() if not found.dead_letter.handled),
        key=lambda found: found.seq,
    )


async def retry(bus: Bus, chosen: Iterable[ListedDeadLetter], console: PlainConsole) -> bool:
    """Mark each as handled and retry it; prints what it does. False if AIM_LOG no longer has a
    message: its dead letter is marked, and nothing is sent."""
    messages: dict[tuple[str, int], Event | Undecodable | None] = {}
    for found in chosen:
        dead_letter = found.dead_letter
        place = dead_letter.subject, dead_letter.seq
        if dead_letter.subject and place not in messages:
            messages[place] = await _original(bus, dead_letter)
        await bus.publisher.publish(acknowledge(dead_letter), cause=[found.seq])
        if not dead_letter.subject:
            _print(console, f"{dead_letter.service} looks at {found.what} again")
    for (subject, seq), message in messages.items():
        _print(console, f"{subject} {seq} {await _send_again(bus, message)}")
    return None not in messages.values()


async def _send_again(bus: Bus, message: Event | Undecodable | None) -> str:
    """Returns what was done."""
    match message:
        case None:
            return "is not in AIM_LOG any more: nothing was sent, the dead letter is closed"
        case Event():
            return "can be read: nothing was sent, the dead letter is closed"
        case Undecodable(subject=subject, data=data, headers=headers):
            try:
                return f"sent again as {await bus.publisher.resend(subject, data, headers)}"
            except OversizedMessage as error:
                return f"is too large to be sent again: {error}"


def _print(console: PlainConsole, text: str) -> None:
    console.print(text, soft_wrap=True)


async def _original(bus: Bus, dead_letter: DeadLetter) -> Event | Undecodable | None:
    """The message of AIM_LOG at the dead letter's sequence, if it has the dead letter's subject;
    else None."""
    if dead_letter.seq < 1 or not _is_a_subject(dead_letter.subject):
        return None
    async with contextlib.aclosing(
        read_log(bus, [dead_letter.subject], after_seq=dead_letter.seq - 1)
    ) as items:
        async for item in items:
            return (
                item if (item.seq, item.subject) == (dead_letter.seq, dead_letter.subject) else None
            )
    return None


def _is_a_subject(text: str) -> bool:
    """Whether it may be asked for: one subject, no pattern of many, of the family that AIM_LOG
    keeps."""
    return subjects.matches(subjects.ALL, text) and not any(
        char.isspace() or char in "*>" or not char.isprintable() for char in text
    )
