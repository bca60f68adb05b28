"""Events over NATS JetStream. The only package that talks to NATS; see README.md."""

from aimbus.connection import Bus, connect
from aimbus.consumer import CaughtUp, Item, Loading, Stalled, follow
from aimbus.credentials import Access
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
from aimbus.log_reader import follow_live, read_log, read_stored
from aimbus.publish import Publisher
from aimbus.server import NatsServer, ServerNotStarted
from aimbus.stream_stats import Reader, Standing, Survey, survey
from aimbus.streams import Level, Streams, ensure_streams, keep_streams

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
