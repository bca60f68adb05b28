"""Events over NATS JetStream. The only package that talks to NATS; see README.md."""

from aimbus.connection import Bus, connect
from aimbus.consumer import CaughtUp, Item, Loading, Stalled, follow
from aimbus.credentials import NatsCredentials
from aimbus.envelope import MAX_AGE_S, Event, Undecodable
from aimbus.errors import (
    AccessDenied,
    ApiError,
    BusClosed,
    BusError,
    HistoryMoved,
    MirrorStalled,
    OversizedMessage,
    StreamsRejected,
    Unreachable,
)
from aimbus.history import (
    HISTORY,
    HISTORY_MAX_BYTES,
    Appended,
    append_history,
    ensure_history,
    forget_history,
    forget_version,
    read_history,
    read_newest,
)
from aimbus.log_reader import follow_live, read_log, read_stored
from aimbus.publish import Publisher
from aimbus.server import NatsServer, ServerNotStarted
from aimbus.stream_stats import BusStats, ConsumerStats, StreamStats, read_bus_stats
from aimbus.streams import Level, Streams, ensure_streams, maintain_streams

__all__ = [
    "HISTORY",
    "HISTORY_MAX_BYTES",
    "MAX_AGE_S",
    "AccessDenied",
    "ApiError",
    "Appended",
    "Bus",
    "BusClosed",
    "BusError",
    "BusStats",
    "CaughtUp",
    "ConsumerStats",
    "Event",
    "HistoryMoved",
    "Item",
    "Level",
    "Loading",
    "MirrorStalled",
    "NatsCredentials",
    "NatsServer",
    "OversizedMessage",
    "Publisher",
    "ServerNotStarted",
    "Stalled",
    "StreamStats",
    "Streams",
    "StreamsRejected",
    "Undecodable",
    "Unreachable",
    "append_history",
    "connect",
    "ensure_history",
    "ensure_streams",
    "follow",
    "follow_live",
    "forget_history",
    "forget_version",
    "maintain_streams",
    "read_bus_stats",
    "read_history",
    "read_log",
    "read_newest",
    "read_stored",
]
