"""The history of 10,000 objects with 100 versions each, in 20 namespaces: the time and the memory
of reading it with an embedded NATS server.

Run by `make bench`; prints a section of RESULTS.md. `--objects` and `--versions` take less.
"""

import argparse
import asyncio
import datetime
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from aimbus import HISTORY, Bus, NatsServer, connect, ensure_history, read_history
from aimbus.envelope import headers_for
from aimbus.jetstream import stream_info
from aimbus.publish import Outgoing, send_batch
from aimctl.analysis.history import blame, changes_between
from aimctl.spec_history import read_states, read_versions
from aimschema.messages import SpecVersion, encode, subject_of
from aimschema.resources import Key

NAMESPACES = 20
BATCH = 500
ROUNDS = 3
ENOUGH_BYTES = 1 << 33


def version(number: int, generation: int) -> SpecVersion:
    """A service with as many fields as one in use."""
    spec = {
        "model": "meta/llama-3-8b:1.1+20240915",
        "templateRef": f"template-{number % 7}",
        "replicas": generation,
        "cacheModel": True,
        "configRef": "default",
        "env": [{"name": f"VARIABLE_{each}", "value": "x" * 40} for each in range(5)],
    }
    return SpecVersion(
        kind="AIMService",
        namespace=f"team-{number % NAMESPACES}",
        name=f"service-{number}",
        uid=f"uid-{number}",
        generation=generation,
        resource_version=str(generation * 100_000 + number),
        spec=spec,
        labels={"team": "a", "app.kubernetes.io/name": "chat"},
        manager="argocd-controller",
        operation="Apply",
        time="2030-01-02T03:04:05Z",
    )


async def fill(bus: Bus, objects: int, versions: int) -> datetime.datetime:
    """Returns a time at which half of the versions are stored."""
    session = await bus.session()
    half = datetime.datetime.now(datetime.UTC)
    for generation in range(1, versions + 1):
        messages = [version(number, generation) for number in range(objects)]
        for start in range(0, objects, BATCH):
            batch = [_outgoing(each) for each in messages[start : start + BATCH]]
            await send_batch(session, batch)
        if generation == versions // 2:
            half = datetime.datetime.now(datetime.UTC)
    return half


def _outgoing(message: SpecVersion) -> Outgoing:
    return Outgoing(subject_of(message), encode(message), headers_for(message, source="bench"))


async def best_s(work: Callable[[], Awaitable[Any]]) -> float:
    """The shortest of some rounds."""
    found = float("inf")
    for _ in range(ROUNDS):
        began_s = time.monotonic()
        await work()
        found = min(found, time.monotonic() - began_s)
    return found


def memory_mb() -> float:
    """The maximum of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def diff(bus: Bus, since: datetime.datetime) -> None:
    """What changed in a namespace."""
    states = await read_states(bus, None, "team-1", since, datetime.datetime.now(datetime.UTC))
    assert changes_between(states.at(0), states.at(1))


async def blame_object(bus: Bus, versions: int) -> None:
    """All versions of an object."""
    found = await read_versions(bus, Key("AIMService", "team-1", "service-1"))
    assert len(found) == versions
    assert blame(found)


async def start(bus: Bus, objects: int) -> None:
    """The last version of every object."""
    found = [item async for item in read_history(bus, ["aimhistory.>"], newest_only=True)]
    assert len(found) == objects


async def measure(folder: Path, objects: int, versions: int) -> None:
    server = NatsServer(folder)
    await server.start()
    bus = await connect(server.url, name="bench")
    await ensure_history(bus, max_bytes=ENOUGH_BYTES)
    half = await fill(bus, objects, versions)
    before_mb = memory_mb()
    namespace = f"diff of a namespace with {objects // NAMESPACES} objects"
    rows = {namespace: await best_s(lambda: diff(bus, half))}
    grown_mb = memory_mb() - before_mb
    rows["history and blame of an object"] = await best_s(lambda: blame_object(bus, versions))
    rows["every last version, which the watcher reads at start"] = await best_s(
        lambda: start(bus, objects)
    )
    info = await stream_info(await bus.session(), HISTORY)
    assert info is not None
    print(f"## History of {objects:,} objects with {versions} versions each\n")
    print("| | seconds |\n|---|---|")
    for name, found_s in rows.items():
        print(f"| {name} | {found_s:.2f} |")
    size_mb = info["state"]["bytes"] / (1 << 20)
    print(f"\nThe stream has {size_mb:,.0f} MiB. The diff takes {grown_mb:.0f} MiB of memory.")
    await bus.close()
    await server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=100)
    found = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="aim-bench-") as folder:
        asyncio.run(measure(Path(folder), found.objects, found.versions))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
