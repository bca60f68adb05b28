"""Events over NATS JetStream. The only package that talks to NATS; see README.md."""

from aimbus.access import Access
from aimbus.connection import Bus, connect
from aimbus.envelope import MAX_AGE_S, Event, Undecodable
from aimbus.errors import (
    AccessRefused,
    ApiError,
    BusClosed,
    BusError,
    MirrorStalled,
    OversizedMessage,
    StreamsRefused,
    Unreachable,
)
from aimbus.follow import CaughtUp, Item, Loading, Stalled, follow
from aimbus.log import follow_live, read_log, read_stored
from aimbus.publish import Publisher
from aimbus.server import NatsServer, ServerNotStarted
from aimbus.streams import Level, Streams, ensure_streams, keep_streams
from aimbus.survey import Reader, Standing, Survey, survey

__all__ = [
    "MAX_AGE_S",
    "Access",
    "AccessRefused",
    "ApiError",
    "Bus",
    "BusClosed",
    "BusError",
    "CaughtUp",
    "Event",
    "Item",
    "Level",
    "Loading",
    "MirrorStalled",
    "NatsServer",
    "OversizedMessage",
    "Publisher",
    "Reader",
    "ServerNotStarted",
    "Stalled",
    "Standing",
    "Streams",
    "StreamsRefused",
    "Survey",
    "Undecodable",
    "Unreachable",
    "connect",
    "ensure_streams",
    "follow",
    "follow_live",
    "keep_streams",
    "read_log",
    "read_stored",
    "survey",
]
