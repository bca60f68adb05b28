"""The two streams: AIM_LOG, which remembers a week, and AIM_STATE, which keeps the latest of every subject for ever.

1. AIM_STATE is a mirror: it has the sequence numbers of AIM_LOG and can be made from it and the cluster; AIM_LOG is never deleted here.
2. A log that was lost and made anew counts from 1 again; a mirror of the old one would wait for numbers that come only much later and
   show a past that nothing corrects. So AIM_STATE is made anew with it.
3. A new AIM_STATE on an old AIM_LOG lacks what is older than a week, so it must not say that it is complete: the sync markers are removed
   from the log first, and come back once the watcher has published everything again.
4. AIM_LOG is synced before it acknowledges. AIM_STATE is not waited for: after a crash it goes on from where it got, out of the log, and to sync
   every message of a copy one by one would hold its readers back by seconds (see docs/adr).
5. `ensure_streams` returns when the mirror is level with the log: differences computed from a half-filled one would be wrong.

Called by the watcher alone.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import structlog

from aimbus.connection import Bus
from aimbus.envelope import MAX_AGE_S
from aimbus.errors import ApiError, StreamsRefused, Unreachable
from aimbus.jetstream import MESSAGE_NOT_FOUND, SECOND_NS, api, stream_info
from aimbus.once import Once
from aimbus.session import Session
from aimschema import subjects

LOG = "AIM_LOG"
STATE = "AIM_STATE"
DUPLICATE_WINDOW_S = 600
MAX_BYTES = 1 << 30
RETRY_S = 0.5
LEVEL_POLL_S = 0.05
CHECK_INTERVAL_S = 10.0

_log = structlog.stdlib.get_logger("aimbus")


@dataclass(frozen=True, slots=True)
class Streams:
    """What `ensure_streams` had to make. `republish`: AIM_STATE is new, publish everything there is, and the sync markers, again."""

    log_made: bool
    state_made: bool

    @property
    def republish(self) -> bool:
        return self.state_made


async def ensure_streams(bus: Bus, *, replicas: int = 1, max_bytes: int = MAX_BYTES) -> Streams:
    """Make, update or repair both streams; returns when AIM_STATE has all that AIM_LOG has. Waits for the server as long as it takes.

    `max_bytes` is the size of AIM_LOG at most; the oldest messages go first. Raises StreamsRefused, which names the limit that is in the way.
    """
    trouble = Once()
    while True:
        session = await bus.session()
        try:
            made = await _ensure(session, replicas, max_bytes)
            await until_level(session)
        except (Unreachable, TimeoutError, ApiError) as error:
            if isinstance(error, ApiError) and error.code != 503:
                raise StreamsRefused(str(error)) from error
            if reason := trouble.news(error):
                _log.warning("streams waiting", error=reason)
            await asyncio.sleep(RETRY_S)
        else:
            return made


async def keep_streams(bus: Bus, *, replicas: int = 1, max_bytes: int = MAX_BYTES) -> AsyncGenerator[Streams, None]:
    """Endless: the result at the start, then one whenever everything must be published again. Looks on every new connection and every 10 s."""
    made = await ensure_streams(bus, replicas=replicas, max_bytes=max_bytes)
    yield made
    while True:
        session = await bus.session()
        await asyncio.wait([session.ended], timeout=CHECK_INTERVAL_S)
        made = await ensure_streams(bus, replicas=replicas, max_bytes=max_bytes)
        if made.republish:
            yield made


async def _ensure(session: Session, replicas: int, max_bytes: int) -> Streams:
    # The mirror first: read in the other order, a busy log would seem to be behind its mirror.
    state = await stream_info(session, STATE)
    log = await stream_info(session, LOG)
    state_config = _state_config(replicas)
    keep_state = state is not None and log is not None and _belongs(state, log) and _is_mirror(state["config"], state_config)
    if state is not None and not keep_state:
        _log.warning("stream made anew", stream=STATE, reason="it is not a mirror of the present log")
        await api(session, f"STREAM.DELETE.{STATE}")
        state = None
    if log is not None and state is None:
        await api(session, f"STREAM.PURGE.{LOG}", {"filter": f"{subjects.SYNCED}.>"})
    await _make(session, _log_config(replicas, max_bytes), log)
    await _make(session, state_config, state)
    return Streams(log_made=log is None, state_made=state is None)


def _belongs(state: dict[str, Any], log: dict[str, Any]) -> bool:
    """A mirror that is older than the log, or ahead of it, is of a log that was lost. The times are RFC 3339 with up to nine decimals."""
    made_after = _instant(state["created"]) >= _instant(log["created"])
    return made_after and state["state"]["last_seq"] <= log["state"]["last_seq"]


def _instant(created: str) -> tuple[str, str]:
    seconds, _, fraction = created.removesuffix("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


def _is_mirror(config: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether what cannot be changed later is as it should be."""
    fixed = ("storage", "persist_mode")
    return (config.get("mirror") or {}).get("name") == LOG and all(config.get(field) == wanted.get(field) for field in fixed)


def _log_config(replicas: int, max_bytes: int) -> dict[str, Any]:
    return {
        "name": LOG,
        "subjects": [subjects.ALL],
        "max_age": MAX_AGE_S * SECOND_NS,
        "max_bytes": max_bytes,
        "max_msgs_per_subject": -1,
        "duplicate_window": DUPLICATE_WINDOW_S * SECOND_NS,
        "allow_atomic": True,
        **_common_config(replicas),
    }


def _state_config(replicas: int) -> dict[str, Any]:
    return {
        "name": STATE,
        "mirror": {"name": LOG},
        "max_age": 0,
        "max_bytes": -1,
        "max_msgs_per_subject": 1,
        **({"persist_mode": "async"} if replicas == 1 else {}),  # replicated streams cannot have it
        **_common_config(replicas),
    }


def _common_config(replicas: int) -> dict[str, Any]:
    return {
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "compression": "s2",
        "allow_msg_ttl": True,
        "num_replicas": replicas,
    }


async def _make(session: Session, config: dict[str, Any], info: dict[str, Any] | None) -> None:
    """Create the stream, or update it where it differs. Raises StreamsRefused with the limits in the text."""
    name = config["name"]
    present = {} if info is None else info["config"]
    differing = sorted(field for field, value in config.items() if field != "mirror" and present.get(field) != value)
    if not differing:
        return
    verb = "CREATE" if info is None else "UPDATE"
    try:
        await api(session, f"STREAM.{verb}.{name}", {**present, **config})
    except ApiError as error:
        if error.code == 503:
            raise
        raise StreamsRefused(await _explain(session, config, differing, error)) from error
    _log.info("stream made" if info is None else "stream updated", stream=name, fields=differing)


async def _explain(session: Session, config: dict[str, Any], differing: list[str], error: ApiError) -> str:
    account = await api(session, "INFO")
    limits, reserved = account["limits"], account.get("reserved_storage", 0)
    return (
        f"{config['name']}: {error}. Asked for: max_bytes {config['max_bytes']}, {config['num_replicas']} replicas, changed: {', '.join(differing)}. "
        f"The account may store {_limit(limits['max_storage'])} bytes, {_limit(limits['storage_max_stream_bytes'])} in one stream, "
        f"{reserved} are reserved; the server has a limit of its own, its disk. Make the log smaller or give NATS more room."
    )


def _limit(size_bytes: int) -> str:
    return "any number of" if size_bytes < 0 else str(size_bytes)


async def until_level(session: Session) -> None:
    """The mirror fills itself, after some 200 ms; there is no event for it.

    Compared with the last message there is, not with the last sequence: what was removed from the end never reaches a new mirror.
    """
    target = await _last_message_seq(session)
    while True:
        info = await stream_info(session, STATE)
        if info is None or info["state"]["last_seq"] >= target:
            return
        await asyncio.sleep(LEVEL_POLL_S)


async def _last_message_seq(session: Session) -> int:
    try:
        answer = await api(session, f"STREAM.MSG.GET.{LOG}", {"last_by_subj": subjects.ALL})
    except ApiError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return 0
        raise
    return int(answer["message"]["seq"])
