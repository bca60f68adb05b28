"""What a client may send and hear on NATS, from what its service declares. Pure.

1. What is not listed is refused: publishing and subscribing each have only a list of what is
   allowed, and no reply is allowed by being asked.
2. A service says what its contract says it emits, and nothing else. Only who keeps the streams (the
   watcher) may make them.
3. Replies come to an inbox of the user's own, so that nobody reads or sends what is meant for
   another.
4. Reading is by consumers of AIM_STATE with several filters, whose subjects are in the request and
   not in its subject, so NATS cannot limit by subject what of the bus a service reads. The bus
   holds no secrets.
5. Who may make a consumer may name any subject for it to deliver to. That is no way around the
   rest: the server delivers only where somebody subscribes to that very subject, streams subscribe
   by wildcard, and inboxes that are subscribed to as such have random names (tests/scenario).
"""

from dataclasses import dataclass

from aimbus.credentials import inbox_prefix
from aimbus.streams import LOG, STATE
from aimschema import subjects
from aimschema.schema_compat import Contract

_READ_STATE = (
    f"$JS.API.STREAM.INFO.{STATE}",
    f"$JS.API.STREAM.MSG.GET.{LOG}",  # whether the mirror is level with the log
    f"$JS.API.CONSUMER.CREATE.{STATE}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.{STATE}.*",
)
_READ_LOG = (
    f"$JS.API.STREAM.INFO.{LOG}",
    f"$JS.API.CONSUMER.CREATE.{LOG}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.{LOG}.*",
)
_READ_STATS = (
    "$JS.API.INFO",
    f"$JS.API.CONSUMER.LIST.{STATE}",
    f"$JS.API.CONSUMER.LIST.{LOG}",
)  # aimbus.stream_stats
_MAINTAIN_STREAMS = (
    "$JS.API.INFO",
    f"$JS.API.STREAM.INFO.{LOG}",
    *(
        f"$JS.API.STREAM.{verb}.{stream}"
        for stream in (LOG, STATE)
        for verb in ("CREATE", "UPDATE")
    ),
    f"$JS.API.STREAM.DELETE.{STATE}",  # AIM_LOG is never deleted
    f"$JS.API.STREAM.PURGE.{LOG}",
)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects, with wildcards, that a user may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def service_permissions(contract: Contract, *, maintains_streams: bool = False) -> Permissions:
    streams = _MAINTAIN_STREAMS if maintains_streams else ()
    return Permissions(
        (*contract.emits, *_READ_STATE, *streams), (f"{inbox_prefix(contract.service)}.>",)
    )


def reader_permissions(client: str, *more: str) -> Permissions:
    """Of a person whose client, by this name, reads all there is, and publishes to `more`."""
    return Permissions(
        (*more, *_READ_STATE, *_READ_LOG, *_READ_STATS),
        (f"{inbox_prefix(client)}.>", f"{subjects.LIVE_PROGRESS}.>"),
    )
