"""Letters of one service on messages of the bus that it could not read.

1. Such a message stops nothing: it is counted, logged with subject and sequence, and kept as a letter on `aim.dead.>` for a person.
2. One letter a message, over reloads and restarts: a service follows its own letters, and writes only once it has caught up with them.
3. Nothing here waits for the bus; letters go out beside the work.
"""

import asyncio

import structlog

from aimbus import Bus, Event, Undecodable
from aimschema import subjects
from aimschema.messages import KEPT_BYTES, DeadLetter, encode
from aimservice.metrics import FAILURES

log = structlog.get_logger()


class Letters:
    """`loading` and `caught_up` are told by whoever follows the bus, which passes on what it finds."""

    def __init__(self, service: str, bus: Bus) -> None:
        self._service = service
        self._bus = bus
        self._found: dict[int, DeadLetter] = {}
        self._told: set[int] = set()
        self._level = False
        self._due = asyncio.Event()

    def loading(self) -> None:
        """Sequences of before may be those of another log."""
        self._level = False
        self._found.clear()
        self._told.clear()

    def caught_up(self) -> None:
        self._level = True
        self._due.set()

    def seen(self, letter: DeadLetter) -> None:
        """A letter of ours, as the bus has it."""
        if letter.seq:
            self._told.add(letter.seq)

    def unreadable(self, item: Undecodable) -> None:
        FAILURES.labels("undecodable").inc()
        log.error("undecodable", subject=item.subject, seq=item.seq, error=item.error)
        address = subjects.find(item.subject)
        key = None if address is None else address.key
        self._found[item.seq] = DeadLetter(
            service=self._service,
            kind="" if address is None else address.kind,
            namespace=None if key is None else key.namespace,
            name="" if key is None else key.name,
            error=item.error,
            attempts=1,
            subject=item.subject,
            seq=item.seq,
            headers=dict(item.headers),
            data=item.data if len(item.data) <= KEPT_BYTES else b"",
            size_bytes=len(item.data),
        )
        self._due.set()

    def unusable(self, event: Event, error: Exception) -> None:
        """It could be read, but not dealt with; what came in its headers is not known any more."""
        self.unreadable(Undecodable(event.seq, event.subject, repr(error), encode(event.message), {}))

    async def send(self) -> None:
        """Until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._level and self._found:
                seq, letter = self._found.popitem()
                if seq not in self._told:
                    self._told.add(seq)
                    await self._bus.publisher.publish(letter)
