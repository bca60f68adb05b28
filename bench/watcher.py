"""How fast the watcher publishes 10,000 objects, and whether a kill during the publication loses or
repeats a message.

Run by `make bench`; prints a section of RESULTS.md. The API server double, the NATS server (on
disk, every write of the log synced) and the watcher are separate processes. Times depend on the
machine, the ratio to a bare list of the same objects in the same run less so.
"""

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import yaml

import aimbus
from aimbus import Bus, CaughtUp, Event, NatsServer, read_log
from aimbus.jetstream import stream_info
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, Process, until_answers
from aimkube import Cluster, NotFound
from aimlab.accounts import write_kubeconfig
from aimschema import subjects
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.messages import ObjectChanged, ObjectDeleted
from aimschema.resources import CACHE, CONFIG_MAP, JOB, LEASE, Key, Resource, key_of

Body = dict[str, Any]
COUNTS: dict[Resource, int] = {CACHE: 5_000, JOB: 3_000, CONFIG_MAP: 2_000}
MIX = (
    "5,000 ModelCaches, 3,000 Jobs, 2,000 ConfigMaps of about 4 KB. Target: caught up within 10 s"
    " and 250 MB; no message lost or repeated."
)
TOTAL = sum(COUNTS.values())
TOUCHED = 500  # deleted while the watcher is down, and as many changed
KILL_AT = TOTAL // 4  # messages in the log
NAMESPACE = "bench"
PUBLISHED = 3_000
POLL_S = 0.02
ROOT = Path(__file__).parents[1]


def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    with tempfile.TemporaryDirectory(prefix="aim-bench-") as folder:
        asyncio.run(bench(Path(folder)))


async def bench(folder: Path) -> None:
    async with AsyncExitStack() as stack:
        children = await stack.enter_async_context(Children(folder / "log"))
        cluster = await stack.enter_async_context(filled_cluster(children, folder))
        lab = Lab(folder, children, cluster)
        list_s = await lab.list_s()
        rows = [("bare list of everything", f"{list_s:.1f} s", "1")]
        async with lab.nats("first") as bus:
            await measure_starts(lab, bus, rows, list_s)
        async with lab.nats("second") as bus:
            lines = await kill_and_resume(lab, bus, rows, list_s)
        async with lab.nats("third") as bus:
            lines += await publishing(bus)
    print_report(rows, lines)


@dataclass
class Lab:
    folder: Path
    children: Children
    cluster: Cluster
    nats_url: str = ""

    @contextlib.asynccontextmanager
    async def nats(self, name: str) -> AsyncIterator[Bus]:
        """An empty NATS server and a connection to it."""
        server = NatsServer(self.folder / name)
        self.nats_url = await server.start()
        bus = await aimbus.connect(self.nats_url, name="bench")
        try:
            yield bus
        finally:
            await bus.close()
            await server.stop()

    async def list_s(self) -> float:
        started_s = time.perf_counter()
        for resource in COUNTS:
            await self.cluster.list(resource)
        return time.perf_counter() - started_s

    async def start_watcher(self) -> "Watcher":
        with contextlib.suppress(
            NotFound
            # a killed leader's lease would delay its successor, which is not measured here
        ):
            await self.cluster.delete(LEASE, "aim-system", "aim-watcher")
        port = free_ports(1)[0]
        env = {
            "AIM_NATS_URL": self.nats_url,
            "AIM_HTTP_PORT": str(port),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
        }
        started_s = time.perf_counter()
        process = await self.children.start(
            "watcher", [sys.executable, "-m", "aim_watcher"], env=env
        )
        return Watcher(self, process, f"http://127.0.0.1:{port}/readyz", started_s)


@dataclass
class Watcher:
    lab: Lab
    process: Process
    readyz: str
    started_s: float

    async def ready_s(self) -> float:
        """Seconds from the start of the process until it is ready."""
        await until_answers(
            self.process,
            self.readyz,
            f"the watcher; its log is {self.lab.children.log_of('watcher')}",
            180,
        )
        return time.perf_counter() - self.started_s

    async def level_s(self, bus: Bus, objects: int) -> float:
        """Seconds from the start until AIM_STATE has all of AIM_LOG, and at least this many
        objects."""
        while True:
            log, state = await info(bus, "AIM_LOG"), await info(bus, "AIM_STATE")
            if state["last_seq"] >= log["last_seq"] and state["num_subjects"] >= objects:
                return time.perf_counter() - self.started_s
            await asyncio.sleep(POLL_S)

    def peak_mb(self) -> float:
        """VmHWM of proc(5): the most memory that was resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def cpu_s(self) -> float:
        """utime and stime of proc(5)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_starts(
    lab: Lab, bus: Bus, rows: list[tuple[str, str, str]], list_s: float
) -> None:
    watcher = await lab.start_watcher()
    ready_s = await watcher.ready_s()
    level_s = await watcher.level_s(bus, TOTAL)
    rows.append(
        (f"first start, {TOTAL:,} objects: ready", f"{ready_s:.1f} s", f"{ready_s / list_s:.1f}")
    )
    rows.append(
        ("first start: everything in AIM_STATE", f"{level_s:.1f} s", f"{level_s / list_s:.1f}")
    )
    rows.append(
        (
            "first start: CPU time of the watcher",
            f"{watcher.cpu_s():.1f} s",
            f"{watcher.cpu_s() / list_s:.1f}",
        )
    )
    rows.append(("first start: peak memory", f"{watcher.peak_mb():.0f} MB", ""))
    await lab.children.stop("watcher")
    before = (await info(bus, "AIM_LOG"))["messages"]
    watcher = await lab.start_watcher()
    ready_s = await watcher.ready_s()
    published = (await info(bus, "AIM_LOG"))["messages"] - before
    rows.append(
        (
            f"restart, nothing changed: ready ({published} messages, all markers)",
            f"{ready_s:.1f} s",
            f"{ready_s / list_s:.1f}",
        )
    )
    rows.append(("restart: peak memory", f"{watcher.peak_mb():.0f} MB", ""))
    await lab.children.stop("watcher")
    load_s = await follower_load_s(bus)
    rows.append(("a service loads AIM_STATE", f"{load_s:.2f} s", f"{load_s / list_s:.2f}"))


async def follower_load_s(bus: Bus) -> float:
    started_s = time.perf_counter()
    async with contextlib.aclosing(aimbus.follow(bus, [f"{subjects.OBJECT}.>"])) as items:
        async for item in items:
            if isinstance(item, CaughtUp):
                break
    return time.perf_counter() - started_s


async def kill_and_resume(
    lab: Lab, bus: Bus, rows: list[tuple[str, str, str]], list_s: float
) -> list[str]:
    watcher = await lab.start_watcher()
    while (await info(bus, "AIM_LOG"))["messages"] < KILL_AT:  # noqa: ASYNC110 (the server sends no event)
        await asyncio.sleep(POLL_S)
    await lab.children.kill("watcher")
    before = await published_messages(bus)
    published = [
        key_of_message(message) for message in before if isinstance(message, ObjectChanged)
    ]
    deleted, changed = published[:TOUCHED], published[-TOUCHED:]
    await asyncio.gather(
        *(in_turn([delete(lab.cluster, key) for key in deleted[lane::8]]) for lane in range(8))
    )
    await asyncio.gather(
        *(in_turn([change(lab.cluster, key) for key in changed[lane::8]]) for lane in range(8))
    )
    watcher = await lab.start_watcher()
    ready_s = await watcher.ready_s()
    await watcher.level_s(bus, TOTAL)
    rows.append(
        (
            f"start after kill -9 at {len(before):,} of {TOTAL:,}: ready",
            f"{ready_s:.1f} s",
            f"{ready_s / list_s:.1f}",
        )
    )
    await lab.children.stop("watcher")
    return await count(lab, bus, len(before), deleted, changed)


async def count(
    lab: Lab, bus: Bus, before: int, deleted: list[Key], changed: list[Key]
) -> list[str]:
    """Compare the bus with the cluster."""
    messages = await published_messages(bus)
    versions = [(type(message), message.uid, message.resource_version) for message in messages]
    last = {key_of_message(message): message for message in messages}
    latest = {
        key_of(body): body["metadata"]["resourceVersion"]
        for resource in COUNTS
        for body in (await lab.cluster.list(resource)).items
    }
    living = {
        key: message.resource_version
        for key, message in last.items()
        if isinstance(message, ObjectChanged)
    }
    lost = sum(living.get(key) != version for key, version in latest.items())
    repeated = len(versions) - len(set(versions))
    deletes = sum(isinstance(last[key], ObjectDeleted) for key in deleted)
    changes = sum(living.get(key) == latest[key] for key in changed)
    return [
        (
            f"Killed when {before:,} messages were in the log; {len(deleted)} of their objects"
            f" deleted and {len(changed)} changed before the next start."
        ),
        "",
        f"- lost: {lost} (objects whose last message is not their state)",
        f"- repeated: {repeated} (messages of the same object and version)",
        f"- published but deleted: {len(living.keys() - latest.keys())}",
        f"- deletes published: {deletes} of {len(deleted)}",
        f"- changes published: {changes} of {len(changed)}",
        (
            f"- messages in all: {len(messages):,} = {TOTAL:,} first versions + {len(changed)}"
            f" changes + {len(deleted)} deletes"
        ),
    ]


async def publishing(bus: Bus) -> list[str]:
    """The same number of messages one by one, as for changes, and in batches, as for lists."""
    await aimbus.ensure_streams(bus)
    rates = []
    for uid in ("single", "batch"):
        messages = [
            ObjectChanged(
                kind=CACHE.kind,
                namespace=NAMESPACE,
                name=f"{uid}-{number}",
                uid=f"{uid}-{number}",
                resource_version="1",
                object=model_cache(number),
            )
            for number in range(PUBLISHED)
        ]
        started_s = time.perf_counter()
        if uid == "batch":
            await bus.publisher.publish_many(messages)
        else:
            await asyncio.gather(*(bus.publisher.publish(message) for message in messages))
        rates.append(PUBLISHED / (time.perf_counter() - started_s))
    single, batch = rates
    return [
        "",
        (
            f"Publishing {PUBLISHED:,} objects: {single:,.0f}/s one by one, {batch:,.0f}/s in"
            f" batches, {batch / single:.1f} times as many."
        ),
    ]


async def published_messages(bus: Bus) -> list[ObjectChanged | ObjectDeleted]:
    """Everything on objects that is in AIM_LOG, in order."""
    messages = [
        event.message
        async for event in read_log(bus, [f"{subjects.OBJECT}.>"])
        if isinstance(event, Event)
    ]
    return [message for message in messages if isinstance(message, ObjectChanged | ObjectDeleted)]


def key_of_message(message: ObjectChanged | ObjectDeleted) -> Key:
    return Key(message.kind, message.namespace, message.name)


async def info(bus: Bus, stream: str) -> dict[str, int]:
    found = await stream_info(await bus.session(), stream)
    empty = {"messages": 0, "last_seq": 0, "num_subjects": 0}
    return empty if found is None else empty | found["state"]


async def delete(cluster: Cluster, key: Key) -> None:
    await cluster.delete(
        next(resource for resource in COUNTS if resource.kind == key.kind), key.namespace, key.name
    )


async def change(cluster: Cluster, key: Key) -> None:
    resource = next(resource for resource in COUNTS if resource.kind == key.kind)
    await cluster.merge_patch(
        resource, key.namespace, key.name, {"metadata": {"annotations": {"bench": "changed"}}}
    )


async def in_turn(work: list[Awaitable[None]]) -> None:
    for each in work:
        await each


@contextlib.asynccontextmanager
async def filled_cluster(children: Children, folder: Path) -> AsyncIterator[Cluster]:
    """The double with the kind ModelCache and all objects."""
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    process = await children.start(
        "apiserver", [sys.executable, "-m", "aimlab.apiserver", "--port", str(port)]
    )
    await until_answers(process, f"{url}/readyz", "the API server")
    write_kubeconfig(folder / "kubeconfig", url)
    cluster = await Cluster.connect(str(folder / "kubeconfig"), user_agent="bench")
    try:
        for name in (NAMESPACE, "aim-system"):
            await cluster.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )
        await cluster.create(
            yaml.safe_load((ROOT / "deploy/crds/modelcaches.aim.silogen.ai.yaml").read_text())
        )
        bodies = [
            (resource, MAKERS[resource](number))
            for resource, amount in COUNTS.items()
            for number in range(amount)
        ]
        started_s = time.perf_counter()
        await asyncio.gather(
            *(in_turn([make(cluster, *each) for each in bodies[lane::8]]) for lane in range(8))
        )
        log(f"{TOTAL:,} objects made in {time.perf_counter() - started_s:.0f} s")
        yield cluster
    finally:
        await cluster.close()


async def make(cluster: Cluster, resource: Resource, body: Body) -> None:
    await cluster.create(body, resource=resource)


def metadata(name: str) -> Body:
    annotations = {
        f"example.com/note-{number}": f"{name}: {'what people and tools write on objects ' * 2}"
        for number in range(8)
    }
    return {
        "name": name,
        "namespace": NAMESPACE,
        "labels": {MANAGED_BY: MANAGED_BY_AIM, "app": name},
        "annotations": annotations,
    }


def environment(amount: int) -> list[Body]:
    return [
        {"name": f"SETTING_{number}", "value": f"value-{number}-" + "x" * 40}
        for number in range(amount)
    ]


def model_cache(number: int) -> Body:
    name = f"cache-{number}"
    spec = {
        "sourceUri": f"hf://example/model-{number}@{'0123456789' * 4}",
        "size": "20Gi",
        "env": environment(28),
    }
    return {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": metadata(name),
        "spec": spec,
    }


def job(number: int) -> Body:
    name = f"job-{number}"
    container = {
        "name": "download",
        "image": "registry.example.com/downloader:1.0",
        "args": ["--to", "/cache"],
        "env": environment(24),
    }
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": metadata(name),
        "spec": {"template": {"spec": pod}},
    }


def config_map(number: int) -> Body:
    name = f"config-{number}"
    return {
        "apiVersion": "v1",
        "kind": CONFIG_MAP.kind,
        "metadata": metadata(name),
        "data": {"found.json": '{"key": "value"} ' * 150},
    }


MAKERS: dict[Resource, Callable[[int], Body]] = {
    CACHE: model_cache,
    JOB: job,
    CONFIG_MAP: config_map,
}


def print_report(rows: list[tuple[str, str, str]], lines: list[str]) -> None:
    table = [
        "| | measured | of the bare list |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    print(
        "\n".join(
            [
                "## The watcher and 10,000 objects",
                "",
                (
                    f"`.venv/bin/python bench/watcher.py`, {os.cpu_count()} cores, load"
                    f" {os.getloadavg()[0]:.1f} at the end. {MIX}"
                ),
                "",
            ]
        )
    )
    print("\n".join([*table, "", *lines]))


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
