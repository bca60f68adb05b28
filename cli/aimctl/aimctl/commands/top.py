"""`aimctl top`: what is being downloaded just now, and what goes over the bus."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aimbus import ApiError, Bus, BusStats, Event, Unreachable, read_bus_stats, read_log
from aimctl.analysis.cache_row import CacheRow
from aimctl.cache_table import cache_table
from aimctl.component_registry import SERVICES
from aimctl.connect import connected_bus
from aimctl.dead_letters import unhandled_dead_letters
from aimctl.invocation import a_console, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import progress_text
from aimctl.output.structured import print_data
from aimctl.state_stream import live_progress, watched_states
from aimschema.messages import Progress
from aimschema.quantities import human
from aimschema.resources import Key
from aimschema.subjects import ALL

SAMPLE_S = 2.0
BEHIND = 100
MOST_CACHES = 20


@dataclass(frozen=True, slots=True)
class Load:
    """A service: events it publishes a second, events it has not read, and its dead letters.
    `pending` is None if it does not read."""

    service: str
    events_per_s: float
    pending: int | None
    dead: int


@dataclass(frozen=True, slots=True)
class Sample:
    events_per_s: float
    log_messages: int
    log_bytes: int
    mirror_lag: int | None
    loads: tuple[Load, ...]
    downloads: tuple[Progress, ...]
    caches: tuple[CacheRow, ...] = ()


async def show_top(console: PlainConsole, form: Form, *, once: bool) -> None:
    """Shows a view every two seconds, until cancelled. Prints one sample with `once`, as a
    document, or without a terminal. Raises RuntimeError without a stream."""
    async with connected_bus() as bus:
        first = await sample(bus)
        if once or form != "text" or not console.is_terminal:
            _show(first, console, form)
            return
        with Live(render(first), console=console) as live:
            while True:
                live.update(render(await sample(bus)))


def _show(shown: Sample, console: PlainConsole, form: Form) -> None:
    if form != "text":
        print_data(console, data(shown), form)
    else:
        console.print(render(shown))


def data(shown: Sample) -> dict[str, object]:
    downloads = [
        {name: getattr(each, name) for name in each.__struct_fields__} for each in shown.downloads
    ]
    return asdict(shown) | {"loads": [asdict(load) for load in shown.loads], "downloads": downloads}


async def sample(bus: Bus) -> Sample:
    """Takes two seconds. Raises RuntimeError where there is no stream to read."""
    try:
        before = await read_bus_stats(bus)
        began_s = time.monotonic()
        live, sent = await asyncio.gather(
            live_progress(bus, None, SAMPLE_S), _count_sent(bus, before)
        )
        after = await read_bus_stats(bus)
        took_s = time.monotonic() - began_s
    except (Unreachable, TimeoutError, ApiError) as error:
        raise RuntimeError(f"cannot read the streams: {error or type(error).__name__}") from error
    dead = Counter(found.dead_letter.service for found in await unhandled_dead_letters(bus))
    found = compute_sample(before, after, took_s, sent, dead, live)
    return replace(found, caches=await _caches(bus))


async def _caches(bus: Bus) -> tuple[CacheRow, ...]:
    from aimctl.analysis.cache_storage import cache_rows  # noqa: PLC0415 (takes long to import)

    async with watched_states(bus) as states:
        state = await states.next()
    assert state is not None  # without a limit it waits
    return tuple(cache_rows(state, None))


async def _count_sent(bus: Bus, before: BusStats) -> Counter[str]:
    """How many events each source sends while it is listened."""
    sent: Counter[str] = Counter()
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(SAMPLE_S),
            contextlib.aclosing(
                read_log(bus, [ALL], after_seq=_last(before), follow=True)
            ) as items,
        ):
            async for item in items:
                if isinstance(item, Event):
                    sent[item.source] += 1
    return sent


def _last(found: BusStats) -> int:
    return 0 if found.log is None else found.log.last_seq


def compute_sample(
    before: BusStats,
    after: BusStats,
    took_s: float,
    sent: Counter[str],
    dead: Counter[str],
    live: dict[Key, Progress],
) -> Sample:
    """Pure."""
    pending: Counter[str] = Counter()
    for reader in after.readers:
        pending[reader.name] += reader.pending
    reads = {reader.name for reader in after.readers}
    loads = [
        Load(
            service,
            round(sent[name] / took_s, 1),
            pending[name] if name in reads else None,
            dead[service],
        )
        for service, name in ((service, f"aim-{service}") for service in SERVICES)
    ]
    log = after.log
    return Sample(
        events_per_s=round(max(0, _last(after) - _last(before)) / took_s, 1),
        log_messages=0 if log is None else log.messages,
        log_bytes=0 if log is None else log.size_bytes,
        mirror_lag=None if after.state is None else after.state.lag,
        loads=tuple(loads),
        downloads=tuple(live[key] for key in sorted(live)),
    )


def render(shown: Sample) -> RenderableType:
    head = (
        f"{shown.events_per_s:g} events/s; AIM_LOG: {shown.log_messages} messages,"
        f" {human(shown.log_bytes)}; AIM_STATE lag: {shown.mirror_lag or 0}"
    )
    loads = Table("SERVICE", "EVENTS/S", "UNREAD", "DEAD", box=None, pad_edge=False)
    for load in shown.loads:
        unread = "not reading" if load.pending is None else str(load.pending)
        style = "red" if load.pending is None or load.pending > BEHIND or load.dead else ""
        loads.add_row(load.service, f"{load.events_per_s:g}", unread, str(load.dead), style=style)
    downloads: list[RenderableType] = [
        Text(f"{each.namespace}/{each.name} {progress_text(each)}") for each in shown.downloads
    ]
    return Group(
        Text(head, style="bold"),
        loads,
        *(downloads or [Text("no downloads", style="dim")]),
        *([cache_table(shown.caches[:MOST_CACHES])] if shown.caches else []),
    )


def top(form: Form, *, once: bool) -> None:
    console = a_console()
    run(console, show_top(console, form, once=once))
