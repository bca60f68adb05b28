"""How long a service takes to replay 100,000 recorded events on one core, including the load of the
file.

Run by `make bench`; prints a section of RESULTS.md. The events are a recorded run of the quickstart
(tests/replay), repeated in as many namespaces as needed. A new one starts every two seconds of
recorded time, so that several are active at once.
"""

import datetime
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import structlog

from aimbus import Event
from aimbus.envelope import CAUSE, SOURCE, open_event
from aimctl.component_registry import PLANNERS, planner
from aimctl.replay.comparator import Comparator
from aimctl.replay.engine import Reconciliation, replay
from aimctl.replay.recording import Recording, load, save
from aimschema.messages import encode, parse_timestamp, timestamp

EVENTS = 100_000
EVERY_S = 2.0
LIMIT_S = 30.0
RECORDED = Path(__file__).parents[1] / "tests" / "replay" / "quickstart.jsonl"
NAMESPACE = b"quickstart"
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UID = re.compile(
    rb"\b[0-9a-f]{4}(?=[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
)


def main() -> None:
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    once = load(RECORDED)
    with tempfile.TemporaryDirectory(prefix="aim-bench-") as folder:
        file = Path(folder) / "many.jsonl"
        copies = save_many(once, file)
        rows = [row(name, file) for name in PLANNERS]
    print("## Replaying 100,000 events\n")
    print(
        f"`.venv/bin/python bench/replay.py`, one core, CPU time, load {os.getloadavg()[0]:.1f} at"
        f" the end. A recorded quickstart of {len(once.events)} events in {copies} namespaces,"
        f" {EVENTS:,} events in one file. Target: {LIMIT_S:.0f} s.\n"
    )
    print(
        "| service | loading | replay | total | reconciles | events/s | differences"
        " |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))


def save_many(once: Recording, file: Path) -> int:
    """Returns the number of namespaces."""
    shared = [event for event in once.events if ".quickstart." not in event.subject]
    copied = [event for event in once.events if ".quickstart." in event.subject]
    copies = -(-(EVENTS - len(shared)) // len(copied))
    events = sorted(
        (*shared, *(event for number in range(copies) for event in again(copied, number))),
        key=lambda event: event.time,
    )[:EVENTS]
    numbered = tuple(replace(event, seq=seq, cause=()) for seq, event in enumerate(events, start=1))
    header = once.header
    save(
        Recording(type(header)(recording=1, origin="bench", until=numbered[-1].time), numbered),
        file,
    )
    return copies


def again(events: list[Event], number: int) -> Iterator[Event]:
    """The same run at a later time, in another namespace and with other uids."""
    namespace = b"%s-%d" % (NAMESPACE, number)
    uid = b"%04x" % number
    later = datetime.timedelta(seconds=EVERY_S * number)

    def shift(found: re.Match[bytes]) -> bytes:
        return timestamp(parse_timestamp(found[0].decode()) + later).encode()

    for event in events:
        data = _TIME.sub(shift, encode(event.message))
        data = _UID.sub(
            uid,
            data.replace(b'"quickstart"', b'"%s"' % namespace).replace(
                b"/quickstart/", b"/%s/" % namespace
            ),
        )
        subject = event.subject.replace(".quickstart.", f".{namespace.decode()}.")
        opened = open_event(
            event.seq, subject, event.time + later, data, {CAUSE: "", SOURCE: event.source}
        )
        assert isinstance(opened, Event), opened
        yield opened


def row(name: str, file: Path) -> str:
    started_s = time.process_time()
    recording = load(file)
    loaded_s = time.process_time()
    comparator = Comparator()
    reconciliations = 0
    differences = 0
    for step in replay(
        planner(name, recording.events), recording.events, until=recording.header.until
    ):
        reconciliations += isinstance(step, Reconciliation)
        differences += sum(1 for _ in comparator.take(step))
    ended_s = time.process_time()
    total_s = ended_s - started_s
    return (
        f"| {name} | {loaded_s - started_s:.1f} s | {ended_s - loaded_s:.1f} s | {total_s:.1f} s"
        f" | {reconciliations:,} | {len(recording.events) / total_s:,.0f} | {differences} |"
    )


if __name__ == "__main__":
    main()
