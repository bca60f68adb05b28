"""How the two streams and their readers stand: for people who look (aimctl doctor, aimctl top).
Changes nothing."""

from dataclasses import dataclass
from typing import Any

from aimbus.connection import Bus
from aimbus.jetstream import SECOND_NS, api, stream_info
from aimbus.session import Session
from aimbus.streams import LOG, STATE


@dataclass(frozen=True, slots=True)
class StreamStats:
    """A stream. `max_bytes` and `max_age_s`: None for no limit. `lag`: of a mirror, how many
    messages it is behind."""

    name: str
    messages: int
    size_bytes: int
    max_bytes: int | None
    max_age_s: float | None
    last_seq: int
    replicas: int
    lag: int | None = None


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A consumer of AIM_STATE or AIM_LOG. `name` is what its process calls itself; `pending`:
    how many messages it has still to be given."""

    name: str
    stream: str
    pending: int


@dataclass(frozen=True, slots=True)
class BusStats:
    """`log` and `state` are None where there is no such stream. `most_bytes`: what the account
    may store, None for no limit."""

    log: StreamStats | None
    state: StreamStats | None
    readers: tuple[ConsumerStats, ...]
    used_bytes: int
    most_bytes: int | None


async def read_bus_stats(bus: Bus) -> BusStats:
    """One look. Raises Unreachable, TimeoutError, or ApiError where the account may not do that,
    or has no JetStream."""
    session = await bus.session()
    account = await api(session, "INFO")
    # The mirror first: read in the other order, a busy log would seem to be behind its mirror.
    state, log = await stream_info(session, STATE), await stream_info(session, LOG)
    readers = [
        reader
        for info, name in ((state, STATE), (log, LOG))
        if info is not None
        for reader in await _consumer_stats(session, name)
    ]
    most = int(account["limits"]["max_storage"])
    return BusStats(
        _stream_stats(log),
        _stream_stats(state),
        tuple(readers),
        int(account["storage"]),
        most if most >= 0 else None,
    )


def _stream_stats(info: dict[str, Any] | None) -> StreamStats | None:
    if info is None:
        return None
    config = info["config"]
    state = info["state"]
    mirror = info.get("mirror")
    return StreamStats(
        name=config["name"],
        messages=int(state["messages"]),
        size_bytes=int(state["bytes"]),
        max_bytes=config["max_bytes"] if config["max_bytes"] >= 0 else None,
        max_age_s=config["max_age"] / SECOND_NS if config["max_age"] else None,
        last_seq=int(state["last_seq"]),
        replicas=int(config["num_replicas"]),
        lag=None if mirror is None else int(mirror.get("lag", 0)),
    )


async def _consumer_stats(session: Session, stream: str) -> list[ConsumerStats]:
    """All consumers: the server gives them in pages (JSApiConsumerListRequest)."""
    found: list[ConsumerStats] = []
    while True:
        page = await api(session, f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        consumers = page.get("consumers") or []
        found += [
            ConsumerStats(
                str(each["config"].get("description", "")), stream, int(each.get("num_pending", 0))
            )
            for each in consumers
        ]
        if not consumers or len(found) >= int(page["total"]):
            return found
