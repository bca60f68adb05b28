"""A service run over a recording, and what it would do otherwise."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from aimbus.tracing import linked_span, tracer
from aimcontroller.component import Component
from aimctl.component_registry import PLANNERS, planner
from aimctl.replay.comparator import Difference, Judge
from aimctl.replay.engine import Look, Own, Step, missing_markers, replay, takes_part
from aimctl.replay.recording import Recording


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
    with linked_span(
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
        for service in (planner(name, recording.events) for name in names)
        if wanted is not None or takes_part(service, recording.events)
    ]
