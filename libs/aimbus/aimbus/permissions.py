"""The subjects that a client may publish and subscribe to, derived from the contract of its
service. Pure.

1. Publishing and subscribing each have only an allow list. A request does not imply a permission to
   reply.
2. A service may publish only the subjects of its contract. Only the maintainer of the streams (the
   watcher) may create them.
3. Replies come to an inbox of the user, so that no other user reads or sends them.
4. Services read by consumers of AIM_STATE with several filters. The filters are in the body of the
   request, so NATS cannot limit by subject what a service reads. The bus has no secrets.
5. A user who may create a consumer may name any delivery subject. This does not bypass the
   permissions: the server delivers only to a subscription of exactly that subject, streams
   subscribe by wildcard, and inboxes with such a subscription have random names (tests/scenario).
"""

from dataclasses import dataclass

from aimbus.credentials import inbox_prefix
from aimbus.history import HISTORY
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
_READ_HISTORY = (
    f"$JS.API.STREAM.INFO.{HISTORY}",
    f"$JS.API.CONSUMER.CREATE.{HISTORY}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.{HISTORY}.*",
    f"$JS.API.DIRECT.GET.{HISTORY}",
)
FORGET_HISTORY = (
    f"$JS.API.STREAM.PURGE.{HISTORY}",
    f"$JS.API.STREAM.MSG.DELETE.{HISTORY}",
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
        for stream in (LOG, STATE, HISTORY)
        for verb in ("CREATE", "UPDATE")
    ),
    f"$JS.API.STREAM.DELETE.{STATE}",  # AIM_LOG is never deleted
    f"$JS.API.STREAM.PURGE.{LOG}",
    *_READ_HISTORY,
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
        (*more, *_READ_STATE, *_READ_LOG, *_READ_STATS, *_READ_HISTORY),
        (f"{inbox_prefix(client)}.>", f"{subjects.LIVE_PROGRESS}.>"),
    )
