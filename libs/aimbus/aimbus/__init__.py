"""Events over NATS JetStream. The only package that talks to NATS; see README.md."""

from aimbus.connection import Bus, connect
from aimbus.envelope import MAX_AGE_S, Event, Undecodable
from aimbus.errors import ApiError, BusClosed, BusError, OversizedMessage, StreamsRefused, Unreachable
from aimbus.follow import CaughtUp, Loading, follow
from aimbus.log import follow_live, read_log, read_stored
from aimbus.publish import Publisher
from aimbus.server import NatsServer, ServerNotStarted
from aimbus.streams import Streams, ensure_streams, keep_streams

__all__ = [
    "MAX_AGE_S",
    "ApiError",
    "Bus",
    "BusClosed",
    "BusError",
    "CaughtUp",
    "Event",
    "Loading",
    "NatsServer",
    "OversizedMessage",
    "Publisher",
    "ServerNotStarted",
    "Streams",
    "StreamsRefused",
    "Undecodable",
    "Unreachable",
    "connect",
    "ensure_streams",
    "follow",
    "follow_live",
    "keep_streams",
    "read_log",
    "read_stored",
]
