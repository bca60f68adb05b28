"""An event costs a service the same, however many objects there are that it does not concern.

Counted are the steps of Python code, not time. The events are those of a recording; beside its
objects the state has those of many more runs, each stopped at the same place.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from aim_testing.steps import counted_steps
from aimbus import Event
from aimcontroller.component import Component
from aimcontroller.projection import Projection, fold
from aimctl.component_registry import PLANNERS, planner
from aimctl.replay.recording import load
from aimschema.messages import (
    ActionTaken,
    Message,
    ObjectChanged,
    ObjectDeleted,
    decode,
    encode,
)
from aimschema.resources import CONFIG, JOB, Key

RECORDINGS = [
    load(Path(__file__).parent / f"{name}.jsonl") for name in ("quickstart", "wrong-s3-key")
]
NAMESPACE = "quickstart"
FEW = 20
MANY = 60
"""Runs beside the one that is counted. There are more than templates that may start a discovery
at once, or that a free turn wakes."""
_UID = re.compile(
    rb"\b[0-9a-f]{4}(?=[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
)
Rename = Callable[[bytes, bytes], bytes]
Stop = Callable[[Iterable[Event]], Iterator[Message]]


def of_another_namespace(data: bytes, number: bytes) -> bytes:
    return data.replace(b'"quickstart"', b'"quickstart-%s"' % number)


def of_the_same_namespace(data: bytes, number: bytes) -> bytes:
    """Service, template, model, sources and all that is made of them."""
    return data.replace(b"minilm", b"mini" + number).replace(b"MiniLM", b"Mini" + number)


def is_shared(message: Message) -> bool:
    """Whether all runs share the object: of the cluster, or a config."""
    return getattr(message, "namespace", None) != NAMESPACE or message.kind == CONFIG.kind


def key_of(message: Message) -> Key:
    assert isinstance(message, ObjectChanged | ObjectDeleted)
    return Key(message.kind, message.namespace, message.name)


def before_discovery(events: Iterable[Event]) -> Iterator[Message]:
    """The run of a template that waits for its turn."""
    for event in events:
        if isinstance(event.message, ObjectChanged) and event.message.kind == JOB.kind:
            return
        yield event.message


def while_caches_are_filled(events: Iterable[Event]) -> Iterator[Message]:
    """The run up to the last event of a download Job that exists."""
    jobs = 0
    for event in events:
        message = event.message
        jobs += isinstance(message, ObjectDeleted) and message.kind == JOB.kind
        if jobs == 2:
            return
        yield message


def to_its_end(events: Iterable[Event]) -> Iterator[Message]:
    return (event.message for event in events)


@cache
def base(rename: Rename, stop: Stop, runs: int) -> Projection:
    """The state with the shared objects and those of this many other runs."""
    events = RECORDINGS[0].events
    state = Projection()
    for event in events:
        if is_shared(event.message):
            state = fold(state, event.message, event.seq)
    for number in range(runs):
        for message in stop(events):
            if not is_shared(message):
                state = fold(state, renamed(message, rename, number), 1)
    return state


def renamed(message: Message, rename: Rename, number: int) -> Message:
    data = _UID.sub(b"%04x" % (number + 0x1000), encode(message))
    return decode(rename(data, b"%03d" % number))


def own_messages(events: Iterable[Event]) -> list[tuple[Message, datetime.datetime]]:
    """What happens to the objects of the counted run, each with its time. In the end all objects
    are deleted, in the order in which they came."""
    own = [
        (event.message, event.time)
        for event in events
        if not is_shared(event.message) and not isinstance(event.message, ActionTaken)
    ]
    latest = {key_of(each): each for each, _ in own if isinstance(each, ObjectChanged)}
    deletions = [
        ObjectDeleted(
            kind=each.kind,
            namespace=each.namespace,
            name=each.name,
            uid=each.uid,
            resource_version=str(int(each.resource_version) + 1),
            object=each.object,
        )
        for each in latest.values()
    ]
    return [*own, *((deletion, own[-1][1]) for deletion in deletions)]


def steps_of(service: Component, events: Iterable[Event], state: Projection) -> int:
    """Steps of folding the events of one run, and of the plans that follow from them."""
    watches = {resource.kind for resource in service.watches}
    reconciles = {resource.kind for resource in service.reconciles}
    messages = own_messages(events)
    with counted_steps() as steps:
        for seq, (message, time) in enumerate(messages, start=1000):
            before, state = state, fold(state, message, seq)
            if isinstance(message, ObjectChanged | ObjectDeleted) and message.kind in watches:
                for key in service.keys_to_reconcile(before, state, key_of(message)):
                    if key.kind in reconciles:
                        service.plan(state, key, time)
    return steps.count


@pytest.mark.parametrize("stop", [before_discovery, while_caches_are_filled, to_its_end])
@pytest.mark.parametrize("rename", [of_another_namespace, of_the_same_namespace])
@pytest.mark.parametrize("name", PLANNERS)
def test_an_event_costs_the_same_beside_more_objects(name: str, rename: Rename, stop: Stop) -> None:
    for recording in RECORDINGS:
        service = planner(name, recording.events)
        few, many = (
            steps_of(service, recording.events, base(rename, stop, runs)) for runs in (FEW, MANY)
        )
        assert many - few < MANY - FEW
