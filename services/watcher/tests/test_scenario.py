"""The watcher between a real nats-server and the lab's API server: after any loss on either
side, the bus ends up equal to the cluster."""

import asyncio
import datetime
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

import aimbus
from aim_watcher.cluster_watch import LIST_SLOT_S, MANAGED
from aim_watcher.streams import publish_cluster
from aimbus import (
    HISTORY,
    Bus,
    CaughtUp,
    Event,
    Loading,
    NatsServer,
    forget_history,
    read_history,
)
from aimbus.jetstream import api
from aimcontroller.health import Health
from aimcontroller.projection import Projection, fold
from aimkube import Cluster, KindNotServed, NotFound, Timing, WatchEvent
from aimlab.apiserver import ApiServer
from aimschema.messages import (
    DeadLetter,
    KindSynced,
    ObjectChanged,
    ObjectDeleted,
    SpecDeleted,
    SpecVersion,
    timestamp,
)
from aimschema.resources import CACHE, CONFIG_MAP, LEASE, TEMPLATE, WATCHED, Key, Resource

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
REFERENCE = {"secretKeyRef": {"name": "s" * 60, "key": "k" * 60}}
LABEL, _, VALUE = MANAGED.partition("=")


def config_map(name: str, text: str = "1") -> dict[str, Any]:
    owner = {"apiVersion": TEMPLATE.api_version, "kind": TEMPLATE.kind, "name": "t", "uid": "u"}
    metadata = {
        "name": name,
        "namespace": "lab",
        "labels": {LABEL: VALUE},
        "ownerReferences": [owner],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"image": text}}


def cache(name: str, size: str = "1Gi") -> dict[str, Any]:
    return {
        "apiVersion": CACHE.api_version,
        "kind": CACHE.kind,
        "metadata": {"name": name, "namespace": "lab"},
        "spec": {"sourceUri": "hf://a/b", "size": size},
    }


async def define_caches(lab: "Lab") -> None:
    """Until the API server serves them."""
    await lab.cluster.create(yaml.safe_load((CRDS / "modelcaches.aim.silogen.ai.yaml").read_text()))
    while not await lab.cluster.serves(CACHE):  # noqa: ASYNC110 (the API server has no event for it)
        await asyncio.sleep(0.05)


@dataclass
class Reader:
    """Follows AIM_STATE as a service does; `state` drops what is older."""

    bus: Bus
    objects: dict[str, ObjectChanged] = field(default_factory=dict)
    synced: dict[str, KindSynced] = field(default_factory=dict)
    state: Projection = field(default_factory=Projection)
    loads: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        async for item in aimbus.follow(self.bus, ["aim.object.>", "aim.synced.>"]):
            async with self.news:
                if isinstance(item, Event):
                    self.state = fold(self.state, item.message, item.seq)
                match item:
                    case Loading():
                        self.objects = {}
                        self.synced = {}
                    case CaughtUp():
                        self.loads += 1
                    case Event(message=ObjectChanged() as message):
                        self.objects[message.name] = message
                    case Event(message=ObjectDeleted() as message):
                        self.objects.pop(message.name, None)
                    case Event(message=KindSynced() as message):
                        self.synced[message.kind] = message
                self.news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self.news:
            await self.news.wait_for(condition)

    def texts(self) -> dict[str, str]:
        return {
            name: message.object["data"]["image"]
            for name, message in self.objects.items()
            if message.kind == "ConfigMap"
        }


@dataclass
class Process:
    running: asyncio.subprocess.Process
    readyz: str


@dataclass
class Lab:
    nats: NatsServer
    api: ApiServer
    kubeconfig: str
    cluster: Cluster
    bus: Bus
    reader: Reader

    @asynccontextmanager
    async def watcher(
        self, *namespaces: str, history_max_bytes: int = 1 << 24
    ) -> AsyncIterator[Health]:
        """A watcher that is killed at the end; nothing of it is left but what it published."""
        health = Health()
        bus = await aimbus.connect(self.nats.url, name="aim-watcher")
        work = asyncio.create_task(
            publish_cluster(
                bus,
                self.cluster,
                health,
                namespaces=namespaces,
                replicas=1,
                max_bytes=1 << 26,
                history_max_bytes=history_max_bytes,
            )
        )
        try:
            yield health
        finally:
            work.cancel()
            await asyncio.wait([work])
            await bus.close()

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """The real thing, killed at the end; without its lease, which would hold up the next one
        for as long as it lasts."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {
            "AIM_NATS_URL": self.nats.url,
            "AIM_HTTP_PORT": str(port),
            "AIM_NATS_MAX_BYTES": str(1 << 26),
            "AIM_NAMESPACE": "lab",
        }
        env = {**os.environ, "KUBECONFIG": self.kubeconfig, **own}
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aim_watcher", env=env, stderr=asyncio.subprocess.PIPE
        )
        try:
            yield Process(running, f"http://127.0.0.1:{port}/readyz")
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
            with suppress(NotFound):
                await self.cluster.delete(LEASE, "lab", "aim-watcher")

    async def until_readable(self, subjects: list[str]) -> None:
        """AIM_STATE has nothing unreadable on these subjects."""
        waiting = set(subjects)
        async with asyncio.timeout(30), aclosing(aimbus.follow(self.bus, subjects)) as items:
            async for item in items:
                if isinstance(item, Event):
                    waiting.discard(item.subject)
                if not waiting:
                    return


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    api = ApiServer()
    nats = NatsServer(tmp_path / "nats")
    url = await api.start()
    await nats.start()
    kubeconfig = tmp_path / "kubeconfig"
    named = {
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {}}],
    }
    kubeconfig.write_text(
        json.dumps(
            {
                **named,
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "current-context": "x",
            }
        )
    )
    cluster = await Cluster.connect(str(kubeconfig))
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}})
    bus = await aimbus.connect(nats.url, name="aim-reader")
    reader = Reader(bus)
    following = asyncio.create_task(reader.run())
    lab = Lab(nats, api, str(kubeconfig), cluster, bus, reader)
    yield lab
    following.cancel()
    await asyncio.wait([following])
    await bus.close()
    await nats.stop()
    await lab.api.stop()
    await lab.cluster.close()


async def test_a_restart_publishes_missed_changes_and_deletes(lab: Lab) -> None:
    for name in ("kept", "changed", "deleted", "remade"):
        await lab.cluster.create(config_map(name))
    async with lab.watcher():
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
        assert set(lab.reader.texts()) == {"kept", "changed", "deleted", "remade"}
        assert not lab.reader.synced["ModelCache"].installed
    await lab.cluster.delete(CONFIG_MAP, "lab", "deleted")
    await lab.cluster.delete(CONFIG_MAP, "lab", "remade")
    await lab.cluster.create(config_map("remade", "2"))
    await lab.cluster.create(config_map("new", "2"))
    await lab.cluster.merge_patch(CONFIG_MAP, "lab", "changed", {"data": {"image": "2"}})
    async with lab.watcher():
        await lab.reader.until(
            lambda: lab.reader.texts() == {"kept": "1", "changed": "2", "remade": "2", "new": "2"}
        )


async def test_live_changes_arrive_and_a_lost_label_is_a_delete(lab: Lab) -> None:
    async with lab.watcher():
        await lab.reader.until(lambda: "ConfigMap" in lab.reader.synced)
        await lab.cluster.create(config_map("a"))
        await lab.cluster.create({**config_map("b"), "metadata": {"name": "b", "namespace": "lab"}})
        await lab.cluster.merge_patch(CONFIG_MAP, "lab", "a", {"data": {"image": "2"}})
        await lab.reader.until(lambda: lab.reader.texts() == {"a": "2"})
        await lab.cluster.merge_patch(
            CONFIG_MAP, "lab", "a", {"metadata": {"labels": {LABEL: None}}}
        )
        await lab.reader.until(lambda: lab.reader.texts() == {})


async def test_an_event_names_the_manager_of_the_spec(lab: Lab) -> None:
    """Of a listed and of a watched object. A later change of status or labels is not its."""
    await define_caches(lab)
    await lab.cluster.apply(cache("a"), manager="team-pipeline")
    async with lab.watcher():
        await lab.reader.until(lambda: "a" in lab.reader.objects)
        await lab.cluster.apply(cache("b"), manager="kubectl-edit")
        await lab.reader.until(lambda: "b" in lab.reader.objects)
    labels = {"metadata": {"labels": {"team": "x"}}}
    await lab.cluster.merge_patch(CACHE, "lab", "a", labels)
    async with lab.watcher():
        await lab.reader.until(lambda: "labels" in lab.reader.objects["a"].object["metadata"])
    assert {
        name: (message.manager, message.operation)
        for name, message in lab.reader.objects.items()
        if message.kind == CACHE.kind
    } == {"a": ("team-pipeline", "Apply"), "b": ("kubectl-edit", "Apply")}
    assert lab.reader.objects["a"].time <= timestamp(datetime.datetime.now(datetime.UTC))


async def test_an_object_may_lose_its_label_twice(lab: Lab) -> None:
    async with lab.watcher():
        await lab.reader.until(lambda: "ConfigMap" in lab.reader.synced)
        await lab.cluster.create(config_map("a"))
        await lab.reader.until(lambda: set(lab.reader.texts()) == {"a"})
        for label in (None, VALUE, None):
            await lab.cluster.merge_patch(
                CONFIG_MAP, "lab", "a", {"metadata": {"labels": {LABEL: label}}}
            )
            if label:
                await lab.reader.until(lambda: set(lab.reader.texts()) == {"a"})
        await lab.cluster.create(config_map("later"))
        await lab.reader.until(lambda: "later" in lab.reader.texts())
        assert set(lab.reader.texts()) == {"later"}


async def test_an_object_too_large_for_the_bus_comes_without_its_bulk(lab: Lab) -> None:
    large = config_map("large") | {"data": {"image": "1", "result.json": "x" * 1_100_000}}
    await lab.cluster.create(large)
    async with lab.watcher():
        await lab.reader.until(lambda: "large" in lab.reader.objects)
        message = lab.reader.objects["large"]
        assert (message.object["data"], message.truncated) == (
            {"image": "1"},
            ("data.result.json",),
        )


async def test_an_unpruned_message_of_a_release_is_replaced_at_once(lab: Lab) -> None:
    """In the same version, and within the time in which the bus takes the same message for a
    repetition."""
    async with lab.watcher():
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
    existing = await lab.cluster.create(
        config_map("kept") | {"data": {"image": "1", "password": "hunter2"}}
    )
    metadata = existing["metadata"]
    identity = {
        "namespace": "lab",
        "name": "kept",
        "uid": metadata["uid"],
        "resource_version": metadata["resourceVersion"],
    }
    await lab.bus.publisher.publish(ObjectChanged(kind="ConfigMap", **identity, object=existing))
    await lab.reader.until(lambda: "kept" in lab.reader.objects)
    assert "password" in lab.reader.objects["kept"].object["data"]
    async with lab.watcher():
        await lab.reader.until(lambda: "password" not in lab.reader.objects["kept"].object["data"])
        assert [
            obj.body["data"] for obj in lab.reader.state.in_namespace(CONFIG_MAP.kind, "lab")
        ] == [{"image": "1"}]


async def in_namespaces(lab: Lab, *names: str) -> None:
    """An object in each, and a Gateway in the last."""
    for name in names:
        await lab.cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
        body = config_map(f"in-{name}")
        await lab.cluster.create({**body, "metadata": body["metadata"] | {"namespace": name}})


async def test_only_named_namespaces_and_cluster_scope_are_published(lab: Lab) -> None:
    await in_namespaces(lab, "a", "b", "c")
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "fast"},
        "provisioner": "p",
    }
    await lab.cluster.create(storage)
    async with lab.watcher("a", "b"):
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
        assert set(lab.reader.objects) == {"in-a", "in-b", "fast"}
        assert lab.reader.synced["ConfigMap"].objects == 2
        await lab.cluster.delete(CONFIG_MAP, "c", "in-c")
        await lab.cluster.merge_patch(CONFIG_MAP, "b", "in-b", {"data": {"image": "2"}})
        await lab.cluster.delete(CONFIG_MAP, "a", "in-a")
        await lab.reader.until(lambda: lab.reader.texts() == {"in-b": "2"})


async def test_a_namespace_leaves_and_comes_back_with_the_setting(lab: Lab) -> None:
    await in_namespaces(lab, "a", "b")

    def existing() -> set[str]:
        return {obj.key.name for obj in lab.reader.state.in_all_namespaces(CONFIG_MAP.kind)}

    for named, left in (
        (("a", "b"), {"in-a", "in-b"}),
        (("a",), {"in-a"}),
        (("a", "b"), {"in-a", "in-b"}),
        ((), {"in-a", "in-b"}),
    ):
        async with lab.watcher(*named):
            await lab.reader.until(lambda left=left: existing() == left)  # type: ignore[misc]


async def test_a_delete_without_its_marker_hides_nothing(lab: Lab) -> None:
    """A watcher of a only was killed between the delete of in-b and the marker that follows it."""
    await in_namespaces(lab, "a", "b")
    async with lab.watcher("a", "b"):
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
    hidden = lab.reader.objects["in-b"]
    await lab.bus.publisher.publish(
        ObjectDeleted(
            kind=hidden.kind,
            namespace=hidden.namespace,
            name=hidden.name,
            uid=hidden.uid,
            resource_version=hidden.resource_version,
            object=hidden.object,
            epoch=hidden.epoch,
        )
    )
    key = Key(hidden.kind, hidden.namespace, hidden.name)
    await lab.reader.until(lambda: lab.reader.state.get(key) is None)
    async with lab.watcher("a", "b"):
        await lab.reader.until(lambda: lab.reader.state.get(key) is not None)


async def test_a_wiped_bus_is_filled_again(lab: Lab) -> None:
    await lab.cluster.create(config_map("a"))
    async with lab.watcher():
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
        await lab.nats.kill()
        await asyncio.to_thread(shutil.rmtree, lab.nats.store_dir)
        loads = lab.reader.loads
        await lab.nats.start()
        await lab.reader.until(
            lambda: (
                lab.reader.loads > loads
                and len(lab.reader.synced) == len(WATCHED)
                and lab.reader.texts() == {"a": "1"}
            )
        )
        await lab.cluster.create(config_map("b"))
        await lab.reader.until(lambda: lab.reader.texts() == {"a": "1", "b": "1"})


class Impatient(Cluster):
    """Takes a watch for dead after a second without an event: one of a version from the future
    is never answered."""

    def list_and_watch(self, *args: Any, **options: Any) -> AsyncGenerator[WatchEvent]:
        return super().list_and_watch(*args, **options, timing=Timing(quiet_s=1.0))


class Hanging(Cluster):
    """A server that does not answer a list of ConfigMaps."""

    def list_and_watch(
        self, resource: Resource, *args: Any, **options: Any
    ) -> AsyncGenerator[WatchEvent]:
        if resource == CONFIG_MAP:
            return _without_an_event()
        return super().list_and_watch(resource, *args, **options)


async def _without_an_event() -> AsyncGenerator[WatchEvent]:
    await asyncio.get_running_loop().create_future()
    yield KindNotServed()


async def test_absent_kinds_do_not_wait_for_the_list_of_another(lab: Lab) -> None:
    await lab.cluster.close()
    lab.cluster = await Hanging.connect(lab.kubeconfig)
    absent = {resource.kind for resource in WATCHED if not await lab.cluster.serves(resource)}
    assert len(absent) > 5
    async with lab.watcher(), asyncio.timeout(LIST_SLOT_S * 0.8):
        await lab.reader.until(lambda: absent <= lab.reader.synced.keys())
        assert not any(lab.reader.synced[kind].installed for kind in absent)


async def test_a_restored_older_cluster_is_republished(lab: Lab) -> None:
    """As after a restored backup: versions begin again where they were, and what a service saw
    since has never been."""
    await lab.cluster.close()
    lab.cluster = await Impatient.connect(lab.kubeconfig)
    await lab.cluster.create(config_map("kept", "0"))
    for number in range(1, 6):
        await lab.cluster.apply(config_map("kept", str(number)), manager="test")
    await lab.cluster.create(config_map("lost"))
    async with lab.watcher():
        await lab.reader.until(lambda: lab.reader.texts() == {"kept": "5", "lost": "1"})
        await lab.api.stop()
        lab.api = ApiServer(port=lab.api.port)
        await lab.api.start()
        await lab.cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}}
        )
        await lab.cluster.create(config_map("kept", "restored"))
        await lab.reader.until(lambda: lab.reader.texts() == {"kept": "restored"})
        await lab.cluster.apply(config_map("kept", "again"), manager="test")
        await lab.reader.until(lambda: lab.reader.texts() == {"kept": "again"})
        state = {
            obj.key.name: obj.body["data"]["image"]
            for obj in lab.reader.state.in_namespace(CONFIG_MAP.kind, "lab")
        }
        assert state == {"kept": "again"}


async def test_a_kill_during_publication_loses_and_repeats_nothing(lab: Lab) -> None:
    """Of 1,000 objects 100 are deleted and 100 changed while it is down; bench/watcher.py does
    the same with 10,000."""
    names = [f"c{number}" for number in range(1_000)]
    await asyncio.gather(
        *(
            _in_turn(lab.cluster.create(config_map(name)) for name in names[lane::8])
            for lane in range(8)
        )
    )
    async with lab.process():
        await lab.reader.until(lambda: bool(lab.reader.objects))
    before = [
        event.message
        async for event in aimbus.read_log(lab.bus, ["aim.object.>"])
        if isinstance(event, Event)
    ]
    published = [message.name for message in before if isinstance(message, ObjectChanged)]
    deleted = published[:100]
    changed = published[100:200]
    await _in_turn(lab.cluster.delete(CONFIG_MAP, "lab", name) for name in deleted)
    await _in_turn(
        lab.cluster.merge_patch(CONFIG_MAP, "lab", name, {"data": {"image": "2"}})
        for name in changed
    )
    async with lab.process() as process:
        await _until_ready(process.readyz)
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
    expected = {name: "2" if name in changed else "1" for name in names if name not in deleted}
    await lab.reader.until(lambda: lab.reader.texts() == expected)
    messages = [
        event.message
        async for event in aimbus.read_log(lab.bus, ["aim.object.>"])
        if isinstance(event, Event)
    ]
    assert {message.name for message in messages if isinstance(message, ObjectDeleted)} == set(
        deleted
    )
    assert len(messages) == 1_000 + len(changed) + len(deleted)


async def test_an_object_behind_an_undecodable_message_is_republished(lab: Lab) -> None:
    """While the watcher runs and before it starts; for existing and missing objects, and for the
    marker of a kind."""
    await lab.cluster.create(config_map("a"))
    poisoned = [
        "aim.object.ConfigMap.lab.a",
        "aim.object.ConfigMap.lab.ghost",
        "aim.synced.ConfigMap",
    ]
    async with lab.watcher():
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
        await _poison(lab, poisoned)
        await lab.until_readable(poisoned)
    await _poison(lab, poisoned)
    async with lab.watcher():
        await lab.until_readable(poisoned)
    assert lab.reader.texts() == {"a": "1"}
    dead_letters = [event async for event in aimbus.read_log(lab.bus, ["aim.dead.>"])]
    about = [
        event.message.subject
        for event in dead_letters
        if isinstance(event, Event) and isinstance(event.message, DeadLetter)
    ]
    assert sorted(about) == sorted(poisoned * 2)


async def test_an_object_that_the_state_lost_is_republished(lab: Lab) -> None:
    """As a power cut may leave it: AIM_STATE is a copy that is not synced message by message."""
    await lab.cluster.create(config_map("a"))
    async with lab.watcher():
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
    session = await lab.bus.session()
    lost = await api(
        session, "STREAM.MSG.GET.AIM_STATE", {"last_by_subj": "aim.object.ConfigMap.lab.a"}
    )
    await api(session, "STREAM.MSG.DELETE.AIM_STATE", {"seq": lost["message"]["seq"]})
    async with lab.watcher():
        await lab.until_readable(["aim.object.ConfigMap.lab.a"])


async def _poison(lab: Lab, subjects: list[str]) -> None:
    for subject in subjects:
        await lab.bus.publisher.resend(subject, b"{", {})


async def _in_turn(work: Iterable[Awaitable[object]]) -> None:
    for each in work:
        await each


async def test_the_process_gets_ready_and_ends_well_on_sigterm(lab: Lab) -> None:
    async with lab.process() as process:
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
        await _until_ready(process.readyz)
        process.running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            _, errors = await process.running.communicate()
        assert process.running.returncode == 0, errors.decode()


async def _until_ready(url: str) -> None:
    """The last marker may be on the bus before its acknowledgement has reached the watcher."""
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


async def history_of(lab: Lab) -> list[str]:
    """The history of all caches, in order."""
    found = []
    async for item in read_history(lab.bus, ["aimhistory.ModelCache.>"]):
        assert isinstance(item, Event)
        match item.message:
            case SpecVersion(name=name, generation=generation, spec=spec):
                found.append(f"{name}/{generation} {spec.get('size')}")
            case SpecDeleted(name=name):
                found.append(f"{name} deleted")
            case _:
                raise AssertionError(item)
    return found


async def until_history(lab: Lab, expected: list[str]) -> None:
    """AIM_HISTORY has no events of its own: a reader asks."""
    found: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            while (found := await history_of(lab)) != expected:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert found == expected


async def resize(lab: Lab, name: str, size: str) -> None:
    await lab.cluster.merge_patch(CACHE, "lab", name, {"spec": {"size": size}})


async def test_each_generation_is_recorded_over_restarts(lab: Lab) -> None:
    await define_caches(lab)
    await lab.cluster.create(cache("a"))
    async with lab.watcher():
        await until_history(lab, ["a/1 1Gi"])
        await resize(lab, "a", "2Gi")
        await lab.cluster.merge_patch(CACHE, "lab", "a", {"metadata": {"labels": {"team": "x"}}})
        await resize(lab, "a", "3Gi")
        await until_history(lab, ["a/1 1Gi", "a/2 2Gi", "a/3 3Gi"])
    async with lab.watcher():
        await lab.cluster.create(cache("b"))
        await until_history(lab, ["a/1 1Gi", "a/2 2Gi", "a/3 3Gi", "b/1 1Gi"])
    await resize(lab, "a", "4Gi")
    await resize(lab, "a", "5Gi")
    await lab.cluster.delete(CACHE, "lab", "b")
    async with lab.watcher():
        past = ["a/1 1Gi", "a/2 2Gi", "a/3 3Gi", "b/1 1Gi"]
        await until_history(lab, [*past, "a/5 5Gi", "b deleted"])
        await lab.cluster.delete(CACHE, "lab", "a")
        await lab.cluster.create(cache("a"))
        await until_history(lab, [*past, "a/5 5Gi", "b deleted", "a deleted", "a/1 1Gi"])


async def test_two_watchers_record_nothing_twice(lab: Lab) -> None:
    await define_caches(lab)
    names = [f"c{number:02}" for number in range(20)]
    for name in names:
        await lab.cluster.create(cache(name))
    async with lab.watcher(), lab.watcher():
        await until_history(lab, [f"{name}/1 1Gi" for name in names])
        for name in names:
            await resize(lab, name, "2Gi")
        async with asyncio.timeout(20):
            while len(await history_of(lab)) < 40:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    found = await history_of(lab)
    assert sorted(found) == sorted(f"{n}/{g} {g}Gi" for n in names for g in (1, 2))


async def test_a_wiped_history_starts_again(lab: Lab) -> None:
    await define_caches(lab)
    await lab.cluster.create(cache("a"))
    async with lab.watcher():
        await until_history(lab, ["a/1 1Gi"])
        await api(await lab.bus.session(), f"STREAM.DELETE.{HISTORY}")
        await lab.cluster.create(cache("b"))
        await until_history(lab, ["a/1 1Gi", "b/1 1Gi"])
        await forget_history(lab.bus, Key(CACHE.kind, "lab", "a"))
        await resize(lab, "a", "2Gi")
        await until_history(lab, ["b/1 1Gi", "a/2 2Gi"])


async def test_a_history_without_room_stops_nothing_else(lab: Lab) -> None:
    """NATS rejects the stream. Objects are published, and recorded once there is room."""
    await define_caches(lab)
    await lab.cluster.create(cache("a"))
    async with lab.watcher(history_max_bytes=1 << 60):
        await lab.reader.until(lambda: len(lab.reader.synced) == len(WATCHED))
        assert "a" in lab.reader.objects
        await resize(lab, "a", "2Gi")
        await lab.reader.until(lambda: lab.reader.objects["a"].object["spec"]["size"] == "2Gi")
    assert await history_of(lab) == []
    async with lab.watcher():
        await until_history(lab, ["a/2 2Gi"])


async def test_a_spec_too_large_for_nats_is_marked(lab: Lab) -> None:
    await define_caches(lab)
    large = cache("large")
    large["spec"]["env"] = [{"name": f"V{n}", "valueFrom": REFERENCE} for n in range(9000)]
    await lab.cluster.create(large)
    async with lab.watcher():
        await until_history(lab, ["large/1 None"])
    (item,) = [item async for item in read_history(lab.bus, ["aimhistory.>"])]
    assert isinstance(item, Event)
    assert isinstance(item.message, SpecVersion)
    assert (item.message.spec, item.message.truncated) == ({}, ("spec",))
