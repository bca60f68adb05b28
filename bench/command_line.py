"""How long help, completion and `aimctl explain` with 10,000 objects on the bus take.

Run by `make bench`; prints a section of RESULTS.md. Each command is a process of its own against a
NATS server on disk. CPU time is of the command, and does not depend on what else the machine does.
"""

import asyncio
import contextlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import structlog

import aimbus
from aimbus import NatsServer
from aimbus.jetstream import stream_info
from aimschema import names
from aimschema.discovery_result import RESULT_KEY
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.messages import KindSynced, ObjectChanged
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    JOB,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
    WATCHED,
    Resource,
)

Body = dict[str, Any]
AIMCTL = str(Path(sys.executable).with_name("aimctl"))
GROUPS = 1_000
RUNS = 5
PADDING = "what people and tools write on objects " * 50
POLL_S = 0.05


def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    with tempfile.TemporaryDirectory(prefix="aim-bench-") as folder:
        rows = asyncio.run(bench(Path(folder)))
    print_report(rows)


async def bench(folder: Path) -> list[tuple[str, str, str]]:
    rows = [
        await row("`aimctl --help`", ["--help"], {}),
        await row("`aimctl explain --help`", ["explain", "--help"], {}),
        await row("completion of a command", [], completion("aimctl ex")),
        await row("completion of a kind", [], completion("aimctl explain -n team m")),
    ]
    for name, spread in (("in one namespace", 1), ("in 100 namespaces", 100)):
        async with filled_bus(folder / str(spread), spread) as url:
            args = ["explain", "aimsvc/s-0", "-n", "team-0"]
            rows.append(
                await row(f"`aimctl explain`, 10,000 objects {name}", args, {"AIM_NATS_URL": url})
            )
    return rows


def completion(line: str) -> dict[str, str]:
    return {
        "_AIMCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }


async def row(what: str, args: list[str], env: Mapping[str, str]) -> tuple[str, str, str]:
    """Medians of wall and CPU time; the first run is not counted."""
    measured = [await asyncio.to_thread(measure, args, env) for _ in range(RUNS + 1)][1:]
    wall_s, cpu_s = (statistics.median(column) for column in zip(*measured, strict=True))
    return what, f"{wall_s:.2f} s", f"{cpu_s:.2f} s"


def measure(args: list[str], env: Mapping[str, str]) -> tuple[float, float]:
    before, started_s = os.times(), time.perf_counter()
    ran = subprocess.run(
        [AIMCTL, *args], env=os.environ | env, capture_output=True, text=True, check=False
    )
    wall_s, after = time.perf_counter() - started_s, os.times()
    if not ran.stdout.strip():
        raise RuntimeError(f"aimctl {' '.join(args)} printed nothing: {ran.stderr}")
    cpu_s = sum(after[2:4]) - sum(before[2:4])  # of children
    return wall_s, cpu_s


@contextlib.asynccontextmanager
async def filled_bus(folder: Path, namespaces: int) -> AsyncIterator[str]:
    """A NATS server with 1,000 services and what belongs to them, spread over `namespaces`."""
    server = NatsServer(folder)
    url = await server.start()
    bus = await aimbus.connect(url, name="bench")
    try:
        await aimbus.ensure_streams(bus)
        objects = [body for number in range(GROUPS) for body in group(number, namespaces)]
        await bus.publisher.publish_many([changed(*each) for each in objects])
        await bus.publisher.publish_many(
            [KindSynced(kind=each.kind, resource_version="1", objects=GROUPS) for each in WATCHED]
        )
        while (await info(bus, "AIM_STATE")) < (await info(bus, "AIM_LOG")):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        yield url
    finally:
        await bus.close()
        await server.stop()


async def info(bus: aimbus.Bus, stream: str) -> int:
    found = await stream_info(await bus.session(), stream)
    return 0 if found is None else int(found["state"]["last_seq"])


def group(number: int, namespaces: int) -> list[tuple[Resource, str, str, Body]]:
    """A service that waits for its cache, which waits for its volume, and what belongs to them."""
    namespace = f"team-{number % namespaces}"
    service, template = f"s-{number}", f"t-{number}"
    source = f"hf://example/model-{number}"
    cache = names.cache_for(source)
    conditions = [
        {"type": "Ready", "status": "False", "reason": "CacheWarming", "message": "is filled"},
        {"type": "CacheReady", "status": "False", "reason": "CacheWarming"},
        {"type": "Resolved", "status": "True", "reason": "Resolved"},
    ]
    pending = {"conditions": [conditions[0] | {"reason": "PVCProvisioning"}]}
    owner = {"kind": TEMPLATE.kind, "name": template, "uid": uid(TEMPLATE, namespace, template)}
    result = {RESULT_KEY: f'{{"models": [{{"name": "m", "source": "{source}"}}]}}'}
    objects: list[tuple[Resource, str, Body]] = [
        (
            SERVICE,
            service,
            {"spec": {"templateRef": template}, "status": {"conditions": conditions}},
        ),
        (TEMPLATE, template, {"spec": {"model": "m"}}),
        (
            CONFIG_MAP,
            names.discovery_config_map(template),
            {"data": result, "metadata": {"ownerReferences": [owner]}},
        ),
        (CACHE, cache, {"spec": {"sourceUri": source}, "status": pending}),
        (CLAIM, names.cache_claim(cache), {"status": {"phase": "Pending"}}),
        (JOB, names.cache_download_job(cache), {}),
        (INFERENCE_SERVICE, service, {}),
        (ROUTE, service, {}),
        *((POD, f"{service}-{replica}", {}) for replica in range(2)),
    ]
    return [(resource, namespace, name, body) for resource, name, body in objects]


def uid(resource: Resource, namespace: str, name: str) -> str:
    return f"{resource.kind}-{namespace}-{name}"


def changed(resource: Resource, namespace: str, name: str, body: Body) -> ObjectChanged:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid(resource, namespace, name),
        "resourceVersion": "1",
        "creationTimestamp": "2030-01-01T00:00:00Z",
        "labels": {MANAGED_BY: MANAGED_BY_AIM},
        "annotations": {"example.com/note": PADDING},
        **body.get("metadata", {}),
    }
    return ObjectChanged(
        kind=resource.kind,
        namespace=namespace,
        name=name,
        uid=metadata["uid"],
        resource_version="1",
        object={
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            **body,
            "metadata": metadata,
        },
    )


def print_report(rows: list[tuple[str, str, str]]) -> None:
    print("## aimctl")
    print()
    print(
        f"`.venv/bin/python bench/command_line.py`, {os.cpu_count()} cores, load"
        f" {os.getloadavg()[0]:.1f} at the end, medians of {RUNS} runs. Objects of about 2 KB."
        " Targets: help and completion 0.3 s, explain 1 s."
    )
    print()
    print("| | time | CPU time |")
    print("|---|---|---|")
    for each in rows:
        print(f"| {' | '.join(each)} |")


if __name__ == "__main__":
    main()
