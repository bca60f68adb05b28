"""`aimctl record` and `aimctl replay`: what happened as a file, and what a service would make of
it today."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import structs

from aimbus.tracing import going_over, tracer
from aimcontroller.controller import Component
from aimctl.console import PlainConsole
from aimctl.dead import reached
from aimctl.judge import Difference, Judge
from aimctl.output import Form, print_data
from aimctl.planners import PLANNERS, planner
from aimctl.recording import VERSION, Header, Recording, history, record, save
from aimctl.replay import Look, Own, Step, missing_markers, replay, takes_part
from aimctl.words import say
from aimschema import subjects
from aimschema.messages import ActionTaken, StatusReported, timestamp

LIVE_MOST_PER_S = 2000.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of replaying one service. `own`: its reports and actions in the record."""

    service: str
    events: int
    looks: int
    own: int
    differences: tuple[Difference, ...]


Told = Callable[[Step, list[str], list[Difference]], None]


def check(service: Component, recording: Recording, told: Told | None = None) -> Outcome:
    """Run a service over a recording. `told` hears of each step: what is new in it, and the
    differences that it makes certain.

    Raises RuntimeError where the record lacks what the service waits for, so that it would plan
    nothing.
    """
    if missing := missing_markers(service, recording.events):
        raise RuntimeError(
            f"the record never says that every {', '.join(missing)} has been published, so the"
            f" {service.name} would not begin"
        )
    judge, looks, own, found = Judge(), 0, 0, list[Difference]()
    until = recording.header.until
    with going_over(
        tracer("aimctl"),
        f"replay {service.name}",
        (event.traceparent for event in recording.events),
    ):
        for step in replay(service, recording.events, begins=recording.header.begins, until=until):
            looks, own = looks + isinstance(step, Look), own + isinstance(step, Own)
            news = judge.news(step) if told is not None else []
            differences = list(judge.take(step))
            found += differences
            if told is not None:
                told(step, news, differences)
        found += judge.end(until)
    return Outcome(service.name, len(recording.events), looks, own, tuple(found))


def up_to(recording: Recording, seq: int | None) -> Recording:
    """The recording as if it had ended with `seq`."""
    if seq is None:
        return recording
    events = tuple(event for event in recording.events if event.seq <= seq)
    ended = events[-1].time if events else recording.header.until
    return Recording(structs.replace(recording.header, until=ended), events)


def services_in(recording: Recording, wanted: str | None) -> list[Component]:
    """The one that is wanted, else all that said or did something."""
    names = [wanted] if wanted is not None else list(PLANNERS)
    return [
        service
        for service in map(planner, names)
        if wanted is not None or takes_part(service, recording.events)
    ]


async def record_namespace(
    namespace: str, since: datetime.datetime | None, file: Path, console: PlainConsole
) -> None:
    async with reached() as bus:
        recording = await record(bus, namespace, since, datetime.datetime.now(datetime.UTC))
    if not recording.events:
        raise RuntimeError(f"nothing has happened in namespace {namespace}")
    save(recording, file)
    took_part = ", ".join(service.name for service in services_in(recording, None)) or "no service"
    say(console, f"{len(recording.events)} events of namespace {namespace} in {file}: {took_part}")


async def live(service: str, most_per_s: float) -> Recording:
    """What AIM_LOG and AIM_STATE have for one service, of all namespaces, read no faster than
    `most_per_s`."""
    wanted = planner(service)
    every_action = f"{subjects.ACTION}.{service}."
    filters = [
        one
        for one in wanted.filters
        if one != subjects.letters(service) and not one.startswith(every_action)
    ]
    async with reached() as bus:
        before, logged = await history(bus, [*filters, f"{every_action}>"], most_per_s=most_per_s)
    begins = max((event.seq for event in before), default=0)
    header = Header(
        recording=VERSION, origin="live", until=datetime.datetime.now(datetime.UTC), begins=begins
    )
    return Recording(header, (*before, *logged))


def replay_and_tell(
    recording: Recording,
    services: Sequence[Component],
    console: PlainConsole,
    *,
    steps: bool,
    form: Form,
) -> bool:
    """True where nothing differs."""
    teller = _Teller(console, quiet=form != "text")
    outcomes = [check(service, recording, teller.tell if steps else None) for service in services]
    if form != "text":
        told: dict[str, Any] = {"services": [_outcome(outcome) for outcome in outcomes]}
        print_data(console, told | ({"steps": teller.steps} if steps else {}), form)
    else:
        for outcome in outcomes:
            _tell_outcome(outcome, console)
    return not any(outcome.differences for outcome in outcomes)


class _Teller:
    """Each step that has news, as it comes."""

    def __init__(self, console: PlainConsole, *, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self.steps: list[dict[str, Any]] = []

    def tell(self, step: Step, news: list[str], differences: list[Difference]) -> None:
        if not (news or differences):
            return
        seq, time, head = _head(step)
        if self._quiet:
            told = [_difference(each) for each in differences]
            self.steps.append(
                {
                    "seq": seq,
                    "time": time.isoformat(),
                    "step": head,
                    "news": news,
                    "differences": told,
                }
            )
            return
        say(self._console, f"{seq:>5}  {time.strftime('%H:%M:%S.%f')[:-3]}  {head}", "bold")
        for line in news:
            say(self._console, f"       {line}")
        for difference in differences:
            _tell_difference(difference, self._console)


def _head(step: Step) -> tuple[int, datetime.datetime, str]:
    if isinstance(step, Look):
        return step.seq, step.time, f"{step.service} looks at {step.key}: {step.why}"
    message = step.event.message
    assert isinstance(message, StatusReported | ActionTaken)
    return step.event.seq, step.event.time, f"{message.service} then"


def _tell_outcome(outcome: Outcome, console: PlainConsole) -> None:
    did = (
        f"{outcome.service}: {outcome.own} reports and actions in {outcome.events} events, looked"
        f" {outcome.looks} times"
    )
    say(
        console,
        f"{did}: {len(outcome.differences) or 'no'} differences",
        "bold red" if outcome.differences else "green",
    )
    for difference in outcome.differences:
        _tell_difference(difference, console)


def _tell_difference(difference: Difference, console: PlainConsole) -> None:
    say(console, f"  ✗ {difference.seq}  {difference.key} {difference.what}", "red")
    for label, text in (("then", difference.then), ("now", difference.now)):
        if text:
            say(console, f"      {label:<5} {text}")
    for path, then, now in difference.at:
        say(console, f"      {path}: {then} → {now}")


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "service": outcome.service,
        "events": outcome.events,
        "looks": outcome.looks,
        "own": outcome.own,
        "differences": [_difference(each) for each in outcome.differences],
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "seq": difference.seq,
        "time": timestamp(difference.time),
        "key": str(difference.key),
        "what": difference.what,
        "then": difference.then,
        "now": difference.now,
        "at": [{"path": path, "then": then, "now": now} for path, then, now in difference.at],
    }
