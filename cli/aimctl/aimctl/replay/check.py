"""A service run over a recording, and what it would do otherwise."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from aimbus.tracing import linked_span, tracer
from aimcontroller.component import Component
from aimctl.component_registry import PLANNERS, planner
from aimctl.replay.comparator import Comparator, Difference
from aimctl.replay.engine import OwnEvent, Reconciliation, Step, missing_markers, replay, takes_part
from aimctl.replay.recording import Recording


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of replaying one service. `own`: its reports and actions in the record."""

    service: str
    events: int
    reconciliations: int
    own: int
    differences: tuple[Difference, ...]


OnStep = Callable[[Step, list[str], list[Difference]], None]


def check(service: Component, recording: Recording, on_step: OnStep | None = None) -> Outcome:
    """Run a service over a recording. `on_step` gets each step, its new actions and reports, and
    the differences that it makes certain.

    Raises RuntimeError if the record lacks a marker that the service waits for: it would plan
    nothing.
    """
    if missing := missing_markers(service, recording.events):
        raise RuntimeError(
            f"the record does not show that every {', '.join(missing)} was published, so the"
            f" {service.name} would not start"
        )
    comparator = Comparator()
    reconciliations = 0
    own = 0
    found = list[Difference]()
    until = recording.header.until
    with linked_span(
        tracer("aimctl"),
        f"replay {service.name}",
        (event.traceparent for event in recording.events),
    ):
        for step in replay(service, recording.events, begins=recording.header.begins, until=until):
            reconciliations = reconciliations + isinstance(step, Reconciliation)
            own = own + isinstance(step, OwnEvent)
            news = comparator.news(step) if on_step is not None else []
            differences = list(comparator.take(step))
            found += differences
            if on_step is not None:
                on_step(step, news, differences)
        found += comparator.end(until)
    return Outcome(service.name, len(recording.events), reconciliations, own, tuple(found))


def up_to(recording: Recording, seq: int | None) -> Recording:
    """The recording as if it had ended with `seq`."""
    if seq is None:
        return recording
    events = tuple(event for event in recording.events if event.seq <= seq)
    ended = events[-1].time if events else recording.header.until
    return Recording(structs.replace(recording.header, until=ended), events)


def services_in(recording: Recording, only: str | None) -> list[Component]:
    """The named service, else all that reported or did something."""
    names = [only] if only is not None else list(PLANNERS)
    return [
        service
        for service in (planner(name, recording.events) for name in names)
        if only is not None or takes_part(service, recording.events)
    ]
