"""The CPU time that one AIMService costs each service, by how many there are: decoding, folding and
planning, without network or API server.

Run by `make bench`; prints a section of RESULTS.md. The events are those of the AIMService of a
recorded quickstart (tests/replay), from its creation on a warm cache until it runs. They are
repeated for every service, all in one namespace with one template, each step for all services
before the next step. Numbers as arguments are the counts of services.
"""

import gc
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from aimbus import Event
from aimbus.envelope import CAUSE, SOURCE, open_event
from aimcontroller.component import Component
from aimcontroller.projection import Projection, fold
from aimctl.component_registry import PLANNERS, planner
from aimctl.replay.recording import load
from aimschema import subjects
from aimschema.messages import ObjectChanged, StatusReported, encode
from aimschema.resources import Key

COUNTS = (100, 1_000, 5_000)
RECORDED = Path(__file__).parents[1] / "tests" / "replay" / "quickstart.jsonl"
NAME = re.compile(rb"(?<![-\w])minilm(?!-latency)")
_UID = re.compile(
    rb"\b[0-9a-f]{4}(?=[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
)


@dataclass
class Cost:
    """CPU time in ns."""

    decode: int = 0
    fold: int = 0
    plan: int = 0
    events: int = 0
    plans: int = 0


def main() -> None:
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    counts = tuple(map(int, sys.argv[1:])) or COUNTS
    shared, steps = split(load(RECORDED).events)
    print("## CPU time by the number of AIMServices\n")
    print(
        "`.venv/bin/python bench/scaling.py`, CPU time per AIMService in ms, one core, load"
        f" {os.getloadavg()[0]:.1f}. One namespace and one template, warm cache,"
        f" {len(steps)} messages each.\n"
    )
    print("| service | AIMServices | decoding | folding | planning | total | events | plans |")
    print("|---|---|---|---|---|---|---|---|")
    for name in PLANNERS:
        for count in counts:
            print(row(name, count, measure(planner(name), shared, steps, count)), flush=True)


def split(events: tuple[Event, ...]) -> tuple[list[Event], list[Event]]:
    """What all services share, and the messages of one service on a warm cache."""
    warm = min(event.seq for event in events if event.subject.startswith("aim.action.deployer."))
    own = [event for event in events if NAME.search(event.subject.encode())]
    created = next(event for event in own if ".object.AIMService." in event.subject)
    late = [event for event in own if event.seq >= warm - 15 or ".HTTPRoute." in event.subject]
    shared = [event for event in events if not NAME.search(event.subject.encode())]
    return shared, [created, *late]


def repeat(steps: list[Event], count: int, seq: int) -> Iterator[tuple[str, bytes, Event, int]]:
    """Subject, data, the recorded event, and the sequence number of each message."""
    for event in steps:
        data = encode(event.message)
        for number in range(count):
            seq += 1
            name = b"minilm-%d" % number
            subject = NAME.sub(name, event.subject.encode()).decode()
            yield subject, _UID.sub(b"%04x" % number, NAME.sub(name, data)), event, seq


def measure(component: Component, shared: list[Event], steps: list[Event], count: int) -> Cost:
    state = Projection()
    for event in shared:
        if follows(component, event.subject):
            state = fold(state, event.message, event.seq)
    cost, now = Cost(), datetime.now(UTC)
    followed = [event for event in steps if follows(component, event.subject)]
    gc.collect()
    for subject, data, event, seq in repeat(followed, count, 10_000):
        headers = {CAUSE: "17,18", SOURCE: event.source}
        began = time.process_time_ns()
        opened = open_event(seq, subject, event.time, data, headers)
        decoded = time.process_time_ns()
        assert isinstance(opened, Event), opened
        before, message = state, opened.message
        state = fold(state, message, seq)
        keys: list[Key] = []
        if isinstance(message, ObjectChanged):
            key = Key(message.kind, message.namespace, message.name)
            keys = component.keys_to_reconcile(before, state, key)
        elif isinstance(message, StatusReported) and component.reports:
            keys = [Key(message.kind, message.namespace, message.name)]
        folded = time.process_time_ns()
        for key in keys:
            component.plan(state, key, now + timedelta(seconds=1))
        cost.plan += time.process_time_ns() - folded
        cost.fold += folded - decoded
        cost.decode += decoded - began
        cost.events += 1
        cost.plans += len(keys)
    return cost


def follows(component: Component, subject: str) -> bool:
    return any(subjects.matches(pattern, subject) for pattern in component.filters)


def row(name: str, count: int, cost: Cost) -> str:
    parts = (cost.decode, cost.fold, cost.plan, cost.decode + cost.fold + cost.plan)
    times = " | ".join(f"{part / count / 1e6:.2f}" for part in parts)
    return (
        f"| {name} | {count:,} | {times} | {cost.events / count:.0f} | {cost.plans / count:.0f} |"
    )


if __name__ == "__main__":
    main()
