"""Dead letters of one service for undecodable messages on the bus.

1. Such a message blocks nothing: it is counted, logged with subject and sequence, and published as
   a dead letter on `aim.dead.>` for a person.
2. There is one dead letter per message, over reloads and restarts: a service follows its own dead
   letters, and writes only once it has caught up with them.
3. No call here waits for the bus; dead letters are sent in the background.
4. The content of a message is untrusted: a dead letter has a bounded part of it, and one that
   cannot be sent is logged.
"""

import asyncio

import structlog

from aimbus import Bus, Event, OversizedMessage, Undecodable
from aimcontroller.metrics import FAILURES
from aimschema import subjects
from aimschema.messages import MAX_DEAD_LETTER_DATA_BYTES, DeadLetter, encode

ERROR_LENGTH = 1024
HEADER_LENGTH = 1024
HEADERS = ("ce-id", "ce-type", "ce-source", "ce-subject", "ce-time", "aim-cause", "traceparent")
"""The headers in the dead letter; all others are only in AIM_LOG."""
log = structlog.get_logger()


class DeadLetters:
    """The follower of the bus calls `loading` and `caught_up`, and passes on undecodable
    messages."""

    def __init__(self, service: str, bus: Bus) -> None:
        self._service = service
        self._bus = bus
        self._found: dict[int, DeadLetter] = {}
        self._published: set[int] = set()
        self._is_level = False
        self._due = asyncio.Event()

    def load_started(self) -> None:
        """Sequences of before may be those of another log."""
        self._is_level = False
        self._found.clear()
        self._published.clear()

    def load_ended(self) -> None:
        self._is_level = True
        self._due.set()

    def mark_published(self, dead_letter: DeadLetter) -> None:
        """A dead letter of this service, as received from the bus."""
        if dead_letter.seq:
            self._published.add(dead_letter.seq)

    def record_undecodable(self, item: Undecodable) -> None:
        FAILURES.labels("undecodable").inc()
        log.error(
            "undecodable", subject=item.subject, seq=item.seq, error=truncate_error(item.error)
        )
        address = subjects.try_parse(item.subject)
        key = None if address is None else address.key
        self._found[item.seq] = DeadLetter(
            service=self._service,
            kind="" if address is None else address.kind,
            namespace=None if key is None else key.namespace,
            name="" if key is None else key.name,
            error=truncate_error(item.error),
            attempts=1,
            subject=item.subject,
            seq=item.seq,
            headers={
                name: item.headers[name][:HEADER_LENGTH] for name in HEADERS if name in item.headers
            },
            data=item.data if len(item.data) <= MAX_DEAD_LETTER_DATA_BYTES else b"",
            size_bytes=len(item.data),
        )
        self._due.set()

    def record_unprocessable(self, event: Event, error: Exception) -> None:
        """It could be read, but not dealt with; what came in its headers is not known any more."""
        try:
            data = encode(event.message)
        except (
            ValueError,
            OverflowError,
            RecursionError,
        ):  # (it could be decoded, from not so deep in the stack)
            data = b""
        self.record_undecodable(Undecodable(event.seq, event.subject, repr(error), data, {}))

    async def send(self) -> None:
        """Until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._is_level and self._found:
                seq, dead_letter = self._found.popitem()
                if seq not in self._published:
                    self._published.add(seq)
                    try:
                        await self._bus.publisher.publish(dead_letter)
                    except (
                        OversizedMessage,
                        ValueError,
                    ) as error:  # (ValueError: text that is no UTF-8)
                        log.warning(
                            "dead-letter-not-sent",
                            subject=dead_letter.subject,
                            seq=seq,
                            error=truncate_error(str(error)),
                        )


def truncate_error(error: str) -> str:
    """The part of an error's text that goes into a dead letter."""
    return error if len(error) <= ERROR_LENGTH else error[: ERROR_LENGTH - 1] + "…"
