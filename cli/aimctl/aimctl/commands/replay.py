"""`aimctl record` and `aimctl replay`: what happened as a file, and what a service would make of
it today."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from aimcontroller import tracing
from aimcontroller.component import Component
from aimcontroller.process import FLUSH_S
from aimctl.component_registry import planner
from aimctl.connect import connected_bus
from aimctl.event_log import history
from aimctl.invocation import a_console, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data
from aimctl.replay.check import Outcome, check, services_in, up_to
from aimctl.replay.comparator import Difference
from aimctl.replay.engine import Reconciliation, Step
from aimctl.replay.recording import (
    VERSION,
    Header,
    Recording,
    load,
)
from aimschema import subjects
from aimschema.messages import ActionTaken, StatusReported, timestamp


async def live(service: str, most_per_s: float) -> Recording:
    """What AIM_LOG and AIM_STATE have for one service, of all namespaces, read no faster than
    `most_per_s`."""
    component = planner(service)
    every_action = f"{subjects.ACTION}.{service}."
    filters = [
        one
        for one in component.filters
        if one != subjects.dead_letters(service) and not one.startswith(every_action)
    ]
    async with connected_bus() as bus:
        before, logged = await history(bus, [*filters, f"{every_action}>"], most_per_s=most_per_s)
    begins = max((event.seq for event in before), default=0)
    header = Header(
        recording=VERSION, origin="live", until=datetime.datetime.now(datetime.UTC), begins=begins
    )
    return Recording(header, (*before, *logged))


def replay_and_print(
    recording: Recording,
    services: Sequence[Component],
    console: PlainConsole,
    *,
    steps: bool,
    form: Form,
) -> bool:
    """True where nothing differs."""
    printer = _Teller(console, quiet=form != "text")
    outcomes = [
        check(service, recording, printer.print_step if steps else None) for service in services
    ]
    if form != "text":
        data: dict[str, Any] = {"services": [_outcome(outcome) for outcome in outcomes]}
        print_data(console, data | ({"steps": printer.steps} if steps else {}), form)
    else:
        for outcome in outcomes:
            _print_outcome(outcome, console)
    return not any(outcome.differences for outcome in outcomes)


class _Teller:
    """Each step that has news, as it comes."""

    def __init__(self, console: PlainConsole, *, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self.steps: list[dict[str, Any]] = []

    def print_step(self, step: Step, news: list[str], differences: list[Difference]) -> None:
        if not (news or differences):
            return
        seq, time, head = _head(step)
        if self._quiet:
            shown_differences = [_difference(each) for each in differences]
            self.steps.append(
                {
                    "seq": seq,
                    "time": time.isoformat(),
                    "step": head,
                    "news": news,
                    "differences": shown_differences,
                }
            )
            return
        print_text(self._console, f"{seq:>5}  {time.strftime('%H:%M:%S.%f')[:-3]}  {head}", "bold")
        for line in news:
            print_text(self._console, f"       {line}")
        for difference in differences:
            _print_difference(difference, self._console)


def _head(step: Step) -> tuple[int, datetime.datetime, str]:
    if isinstance(step, Reconciliation):
        return step.seq, step.time, f"{step.service} looks at {step.key}: {step.why}"
    message = step.event.message
    assert isinstance(message, StatusReported | ActionTaken)
    return step.event.seq, step.event.time, f"{message.service} then"


def _print_outcome(outcome: Outcome, console: PlainConsole) -> None:
    did = (
        f"{outcome.service}: {outcome.own} reports and actions in {outcome.events} events,"
        f" {outcome.reconciliations} reconciles"
    )
    print_text(
        console,
        f"{did}: {len(outcome.differences) or 'no'} differences",
        "bold red" if outcome.differences else "green",
    )
    for difference in outcome.differences:
        _print_difference(difference, console)


def _print_difference(difference: Difference, console: PlainConsole) -> None:
    print_text(console, f"  ✗ {difference.seq}  {difference.key} {difference.what}", "red")
    for label, text in (("then", difference.then), ("now", difference.now)):
        if text:
            print_text(console, f"      {label:<5} {text}")
    for path, then, now in difference.at:
        print_text(console, f"      {path}: {then} → {now}")


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "service": outcome.service,
        "events": outcome.events,
        "looks": outcome.reconciliations,
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


@dataclass(frozen=True, slots=True)
class Source:
    """What is replayed: a file, or the bus for one service; up to and with the event `until`.
    `service` None: every service of the file."""

    file: Path | None
    service: str | None
    most_per_s: float
    until: int | None

    async def read(self) -> Recording:
        recording = (
            await live(str(self.service), self.most_per_s) if self.file is None else load(self.file)
        )
        return up_to(recording, self.until)


def replay(source: Source, form: Form, *, steps: bool) -> None:
    console = a_console()

    async def work() -> bool:
        recording = await source.read()
        flush = tracing.configure("aimctl")
        try:
            return replay_and_print(
                recording, services_in(recording, source.service), console, steps=steps, form=form
            )
        finally:
            flush(FLUSH_S)

    raise typer.Exit(0 if run(console, work()) else 1)
