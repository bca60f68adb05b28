"""Events read from AIM_LOG and AIM_STATE."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import aimbus
from aimbus import Bus, CaughtUp, Event
from aimschema import subjects
from aimschema.messages import ObjectChanged
from aimschema.names import DEFAULT_CONFIG, SYSTEM_NAMESPACE, image_config_map
from aimschema.reasons import DISCOVERY
from aimschema.resources import CONFIG, CONFIG_MAP, GATEWAY, MODEL, ROUTE, SERVICE, Key

WITHIN_S = 30.0


T = TypeVar("T")
PACE = 50
"""After so many events it is looked whether they came too fast."""


async def history_of(bus: Bus, namespace: str) -> tuple[list[Event], list[Event]]:
    """As `history`: a namespace, what is above it, and what of other namespaces these rest on."""
    before, logged = await history(bus, subjects.in_namespace(namespace))
    if elsewhere := rests_on([*before, *logged], namespace):
        more = await history(bus, elsewhere)
        before, logged = in_order(before + more[0]), in_order(logged + more[1])
    return before, logged


async def history(
    bus: Bus, filters: Sequence[str], *, most_per_s: float | None = None
) -> tuple[list[Event], list[Event]]:
    """What AIM_STATE still knows and the log has dropped, and the log. Raises RuntimeError where
    there is no stream to read.

    `most_per_s`: the log is read no faster, so that a running system does not feel it.
    """
    logged = [
        event
        async for event in _limit_rate(aimbus.read_log(bus, filters), most_per_s)
        if isinstance(event, Event)
    ]
    known = {event.seq for event in logged}
    last = max((event.seq for event in logged), default=None)
    dropped = [
        event
        for event in await latest(bus, filters)
        if event.seq not in known and (last is None or event.seq < last)
    ]
    return in_order(dropped), logged


async def latest(bus: Bus, filters: Sequence[str]) -> list[Event]:
    """What AIM_STATE has. Raises RuntimeError where there is no stream to read."""
    found = []
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            contextlib.aclosing(aimbus.follow(bus, filters)) as items,
        ):
            async for item in items:
                if isinstance(item, CaughtUp):
                    break
                if isinstance(item, Event):
                    found.append(item)
    except TimeoutError:
        raise RuntimeError(
            "the NATS server has no stream AIM_STATE, or does not answer: is the watcher running?"
        ) from None
    return found


async def _limit_rate(items: AsyncIterator[T], most_per_s: float | None) -> AsyncIterator[T]:
    """The server sends no more than is taken (a batch ahead at most)."""
    started_s, count = time.monotonic(), 0
    async for item in items:
        yield item
        count += 1
        if most_per_s is not None and count % PACE == 0:
            await asyncio.sleep(max(0.0, started_s + count / most_per_s - time.monotonic()))


def in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.seq)


def rests_on(events: Iterable[Event], namespace: str) -> list[str]:
    """Subjects that planners read in other namespaces: Gateways, reports and ConfigMaps of model
    images, and the config with their pull secrets."""
    changed = [event.message for event in events if isinstance(event.message, ObjectChanged)]
    gateways = {
        key
        for message in changed
        if message.namespace == namespace
        for key in _gateways(message, namespace)
    }
    own = os.environ.get("AIM_NAMESPACE", SYSTEM_NAMESPACE)
    images = {
        Key(CONFIG_MAP.kind, own, image_config_map(message.name))
        for message in changed
        if message.kind == MODEL.kind
    }
    objects = {
        key
        for key in (*gateways, *images, Key(CONFIG.kind, own, DEFAULT_CONFIG))
        if key.namespace != namespace
    }
    done = {subjects.of_action(DISCOVERY, key) for key in images if key.namespace != namespace}
    return sorted({*map(subjects.of_object, objects), *done})


def _gateways(message: ObjectChanged, namespace: str) -> Iterator[Key]:
    spec: dict[str, Any] = message.object.get("spec") or {}
    named = []
    if message.kind in {CONFIG.kind, SERVICE.kind}:
        named = [(spec.get("routing") or {}).get("gateway") or {}]
    elif message.kind == ROUTE.kind:
        named = spec.get("parentRefs") or []
    for each in named:
        if each.get("name") and each.get("kind", GATEWAY.kind) == GATEWAY.kind:
            yield Key(GATEWAY.kind, str(each.get("namespace") or namespace), str(each["name"]))
