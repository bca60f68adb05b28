"""The two streams: AIM_LOG, which has a week of history, and AIM_STATE, which has the latest
message of every subject without a time limit.

1. AIM_STATE is a mirror: it has the sequence numbers of AIM_LOG and can be re-created from it and
   the cluster. AIM_LOG is never deleted here.
2. A log that was lost and re-created counts from 1 again. A mirror of the old one would wait for
   numbers that come only much later, and show an old state that nothing corrects. So AIM_STATE is
   re-created with it.
3. A new AIM_STATE on an old AIM_LOG has no messages older than a week, so it must not look
   complete. The sync markers are removed from the log first, and return once the watcher has
   published everything again.
4. AIM_LOG is synced before it acknowledges. AIM_STATE is not: after a crash it continues from the
   log. To sync every copied message would delay its readers by seconds (see docs/adr).
5. `ensure_streams` returns when the mirror has caught up with the log: differences to a partial one
   would be wrong.
6. A mirror that is behind and makes no progress for STALLED_AFTER_S is re-created, whatever the
   cause: its whole content can be restored. A slow mirror is waited for. If re-creation does not
   help, the next limit is twice as long.
7. Both have a size limit. So a user who creates and deletes objects without end cannot fill the
   disk, which would stop all publishing. AIM_STATE drops the longest unchanged objects first, and a
   service that starts then does not know them. An alert fires long before.

Only the watcher calls this.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from aimbus.connection import Bus
from aimbus.envelope import MAX_AGE_S
from aimbus.errors import ApiError, MirrorStalled, StreamsRejected, Unreachable
from aimbus.jetstream import MESSAGE_NOT_FOUND, SECOND_NS, api, stream_info
from aimbus.log_dedup import RepeatSuppressor
from aimbus.session import Session
from aimschema import subjects

LOG = "AIM_LOG"
STATE = "AIM_STATE"
DUPLICATE_WINDOW_S = 600
MAX_BYTES = 1 << 30
LEAST_STATE_BYTES = 1 << 28
"""A log may be kept short; the state of all objects is as large as it is (10,000 take some 50
MB)."""
RETRY_S = 0.5
LEVEL_POLL_S = 0.05
CHECK_INTERVAL_S = 10.0
STALLED_AFTER_S = 30.0
"""nats-server itself begins a mirror that hears nothing again after some 10 s."""
LONGEST_STALL_S = 480.0

_log = structlog.stdlib.get_logger("aimbus")


@dataclass(frozen=True, slots=True)
class Streams:
    """What `ensure_streams` had to make. `republish`: AIM_STATE is new, publish everything there
    is, and the sync markers, again."""

    log_made: bool
    state_made: bool

    @property
    def republish(self) -> bool:
        return self.state_made

    def __or__(self, later: "Streams") -> "Streams":
        """What two passes made: the first may have been interrupted behind it."""
        return Streams(self.log_made or later.log_made, self.state_made or later.state_made)


@dataclass(frozen=True, slots=True)
class Level:
    """How AIM_STATE stands: `lag` messages behind AIM_LOG, without a step for `still_s`. `stalled`:
    it is re-created now.

    `full` is the share of its bound that it takes.
    """

    lag: int
    still_s: float
    stalled: bool = False
    full: float = 0.0


OnLevel = Callable[[Level], None]


def ignore(_: Level) -> None:
    """For callers that need no news of the mirror."""


async def ensure_streams(
    bus: Bus,
    *,
    replicas: int = 1,
    max_bytes: int = MAX_BYTES,
    stalled_after_s: float = STALLED_AFTER_S,
    on_level: OnLevel = ignore,
) -> Streams:
    """Create, update or repair both streams; returns when AIM_STATE has caught up with AIM_LOG.
    Waits for the server without a limit.

    `max_bytes` is the maximum size of each, but AIM_STATE has at least LEAST_STATE_BYTES; the
    oldest messages are dropped first. A mirror without progress for `stalled_after_s` is
    re-created; `on_level` is called with every check of it. Raises StreamsRejected, which names the
    limit.
    """
    trouble = RepeatSuppressor()
    made = Streams(log_made=False, state_made=False)
    while True:
        session = await bus.session()
        try:
            made |= await _ensure(session, replicas, max_bytes)
            await wait_until_mirrored(session, stalled_after_s, on_level)
        except MirrorStalled as stalled:
            on_level(Level(stalled.lag, stalled.still_s, stalled=True))
            stalled_after_s = min(stalled_after_s * 2, LONGEST_STALL_S)
            await _drop_state(session, stalled)
        except (Unreachable, TimeoutError, ApiError) as error:
            if isinstance(error, ApiError) and error.code != 503:
                raise StreamsRejected(str(error)) from error
            if reason := trouble.first_occurrence(error):
                _log.warning("streams-waiting", error=reason)
            await asyncio.sleep(RETRY_S)
        else:
            return made


async def _drop_state(session: Session, stalled: MirrorStalled) -> None:
    """The next pass re-creates it; where NATS is away, so is the reason to drop it."""
    _log.error(
        "mirror-stalled",
        stream=STATE,
        lag=stalled.lag,
        still_s=round(stalled.still_s),
        action="it is re-created",
    )
    with contextlib.suppress(Unreachable, TimeoutError, ApiError):
        await api(session, f"STREAM.DELETE.{STATE}")


async def maintain_streams(
    bus: Bus,
    *,
    replicas: int = 1,
    max_bytes: int = MAX_BYTES,
    stalled_after_s: float = STALLED_AFTER_S,
    on_level: OnLevel = ignore,
) -> AsyncGenerator[Streams, None]:
    """Endless: the result at the start, then one whenever everything must be published again.
    Looks on every new connection and every 10 s."""
    ensure = partial(
        ensure_streams,
        bus,
        replicas=replicas,
        max_bytes=max_bytes,
        stalled_after_s=stalled_after_s,
        on_level=on_level,
    )
    yield await ensure()
    while True:
        session = await bus.session()
        await asyncio.wait([session.ended], timeout=CHECK_INTERVAL_S)
        made = await ensure()
        if made.republish:
            yield made


async def _ensure(session: Session, replicas: int, max_bytes: int) -> Streams:
    # The mirror first: read in the other order, a busy log would seem to be behind its mirror.
    state = await stream_info(session, STATE)
    log = await stream_info(session, LOG)
    state_config = _state_config(replicas, max(max_bytes, LEAST_STATE_BYTES))
    keep_state = (
        state is not None
        and log is not None
        and _belongs(state, log)
        and _is_mirror(state["config"], state_config)
    )
    if state is not None and not keep_state:
        _log.warning(
            "stream-recreated", stream=STATE, reason="it is not a mirror of the present log"
        )
        await api(session, f"STREAM.DELETE.{STATE}")
        state = None
    if log is not None and state is None:
        await api(session, f"STREAM.PURGE.{LOG}", {"filter": f"{subjects.SYNCED}.>"})
    await make_stream(session, _log_config(replicas, max_bytes), log)
    await make_stream(session, state_config, state)
    return Streams(log_made=log is None, state_made=state is None)


def _belongs(state: dict[str, Any], log: dict[str, Any]) -> bool:
    """A mirror that is older than the log, or ahead of it, is of a log that was lost. The times
    are RFC 3339 with up to nine decimals."""
    made_after = _instant(state["created"]) >= _instant(log["created"])
    return made_after and state["state"]["last_seq"] <= log["state"]["last_seq"]


def _instant(created: str) -> tuple[str, str]:
    seconds, _, fraction = created.removesuffix("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


def _is_mirror(config: dict[str, Any], desired: dict[str, Any]) -> bool:
    """Whether what cannot be changed later is as it should be: of the whole log, too, and
    nothing was lost by a limit on messages."""
    fixed = ("storage", "persist_mode", "max_msgs")
    mirror = {name: value for name, value in (config.get("mirror") or {}).items() if value}
    return mirror == desired["mirror"] and all(
        config.get(field) == desired.get(field) for field in fixed
    )


def _log_config(replicas: int, max_bytes: int) -> dict[str, Any]:
    return {
        "name": LOG,
        "subjects": [subjects.ALL],
        "max_age": MAX_AGE_S * SECOND_NS,
        "max_bytes": max_bytes,
        "max_msgs_per_subject": -1,
        "duplicate_window": DUPLICATE_WINDOW_S * SECOND_NS,
        "allow_atomic": True,
        **common_config(replicas),
    }


def _state_config(replicas: int, max_bytes: int) -> dict[str, Any]:
    return {
        "name": STATE,
        "mirror": {"name": LOG},
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": max_bytes,
        "max_msgs_per_subject": 1,
        **({"persist_mode": "async"} if replicas == 1 else {}),  # replicated streams cannot have it
        **common_config(replicas),
    }


def common_config(replicas: int) -> dict[str, Any]:
    """What the configurations of all streams have."""
    return {
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "compression": "s2",
        "allow_msg_ttl": True,
        "num_replicas": replicas,
    }


async def make_stream(
    session: Session, config: dict[str, Any], info: dict[str, Any] | None
) -> None:
    """Create the stream, or update it where it differs. Raises StreamsRejected with the limits in
    the text."""
    name = config["name"]
    existing = {} if info is None else info["config"]
    differing = sorted(
        field
        for field, value in config.items()
        if field != "mirror" and existing.get(field) != value
    )
    if not differing:
        return
    verb = "CREATE" if info is None else "UPDATE"
    try:
        await api(session, f"STREAM.{verb}.{name}", {**existing, **config})
    except ApiError as error:
        if error.code == 503:
            raise
        raise StreamsRejected(await _explain(session, config, differing, error)) from error
    _log.info("stream-created" if info is None else "stream-updated", stream=name, fields=differing)


async def _explain(
    session: Session, config: dict[str, Any], differing: list[str], error: ApiError
) -> str:
    account = await api(session, "INFO")
    limits, reserved = account["limits"], account.get("reserved_storage", 0)
    return (
        f"{config['name']}: {error}. Asked for: max_bytes {config['max_bytes']},"
        f" {config['num_replicas']} replicas, changed: {', '.join(differing)}. The account may"
        f" store {_limit(limits['max_storage'])} bytes,"
        f" {_limit(limits['storage_max_stream_bytes'])} in one stream, {reserved} are reserved; the"
        " server has a limit of its own, its disk. Make the stream smaller or give NATS more room."
    )


def _limit(size_bytes: int) -> str:
    return "any number of" if size_bytes < 0 else str(size_bytes)


class MirrorProgress:
    """For how long a mirror that is behind has not moved."""

    def __init__(self) -> None:
        self._seq = -1
        self._since_s = 0.0

    async def measure(self, session: Session, target: int) -> Level:
        """How the mirror stands to a message of the log. A stream that is missing has nothing to
        be behind with."""
        info = await stream_info(session, STATE)
        seq = target if info is None else int(info["state"]["last_seq"])
        now_s = time.monotonic()
        if seq != self._seq or seq >= target:
            self._seq, self._since_s = seq, now_s
        return Level(max(0, target - seq), now_s - self._since_s, full=_full(info))


def _full(info: dict[str, Any] | None) -> float:
    bound = (info or {}).get("config", {}).get("max_bytes", 0)
    return info["state"].get("bytes", 0) / bound if info is not None and bound > 0 else 0.0


async def wait_until_mirrored(
    session: Session, stalled_after_s: float, on_level: OnLevel = ignore
) -> None:
    """The mirror fills itself, after some 200 ms; there is no event for it. Raises MirrorStalled
    where it does not move for so long.

    Compared with the last message there is, not with the last sequence: what was removed from the
    end never reaches a new mirror.
    """
    target, pace = await last_message_seq(session), MirrorProgress()
    while True:
        level = await pace.measure(session, target)
        on_level(level)
        if level.lag == 0:
            return
        if level.still_s >= stalled_after_s:
            raise MirrorStalled(level.lag, level.still_s)
        await asyncio.sleep(LEVEL_POLL_S)


async def last_message_seq(session: Session) -> int:
    try:
        answer = await api(session, f"STREAM.MSG.GET.{LOG}", {"last_by_subj": subjects.ALL})
    except ApiError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return 0
        raise
    return int(answer["message"]["seq"])
