"""Undecodable events block nothing: they are counted, logged, dead-lettered, listed and
republished, and the hidden state is republished."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import aimbus
from aimbus import Bus, CaughtUp, Event, Undecodable
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, until_answers
from aimctl.manifests import crds, rbac
from aimctl.nats.server import embedded_nats
from aimkube import Cluster
from aimlab.testing import eventually
from aimlab.testing.environments import control_plane_place
from aimschema import subjects
from aimschema.messages import (
    MAX_DEAD_LETTER_DATA_BYTES,
    DeadLetter,
    ObjectChanged,
    StatusReported,
    encode,
)
from aimschema.reasons import ROUTER, WATCHER
from aimschema.resources import SERVICE, Key

pytest_plugins = ["aimlab.testing.server_fixture"]
NAMESPACE = "aim-system"
AIMCTL = str(Path(sys.executable).with_name("aimctl"))


def key(name: str) -> Key:
    return Key(SERVICE.kind, NAMESPACE, name)


def changed(name: str, version: str, body: dict[str, Any]) -> bytes:
    return encode(
        ObjectChanged(
            kind=SERVICE.kind,
            namespace=NAMESPACE,
            name=name,
            uid="u",
            resource_version=version,
            object=body,
        )
    )


ON_OBJECTS = {
    "broken": b'{"type": "aim.object.changed.v1", "kind',
    "wrong-schema": b'{"type": "aim.object.changed.v1", "kind": 7}',
    "later-version": b'{"type": "aim.object.changed.v2", "kind": "AIMService"}',
    "oversized": b"x" * (MAX_DEAD_LETTER_DATA_BYTES + 1),
    "wrong-place": changed("another", "5", {"metadata": {}}),
    "no-number": changed("no-number", "five", {"metadata": {}}),
    "no-metadata": changed("no-metadata", "5", {}),
    "wrong-metadata": changed(
        "wrong-metadata", str(10**9), {"metadata": {"ownerReferences": "not-a-list"}}
    ),
}
"""By the name of the object on whose subject it comes."""
REPORTED = "reported"
POISON = {
    **{subjects.of_object(key(name)): data for name, data in ON_OBJECTS.items()},
    subjects.of_object(key("never-was")): b"{",
    subjects.of_report(key(REPORTED), ROUTER): b"{",
    "aim.object.AIMService.of.too.many.tokens": b"{",
}
READ_BY_WATCHER = {subject for subject in POISON if not subject.startswith(subjects.REPORT)}


@dataclass
class Place:
    """A running watcher and router, and their URLs."""

    cluster: Cluster
    bus: Bus
    children: Children
    accounts: dict[str, Path]
    env: dict[str, str]

    async def start(self, service: str) -> str:
        port = free_ports(1)[0]
        command = f"aim-{service}"
        env = self.env | {"KUBECONFIG": str(self.accounts[command]), "AIM_HTTP_PORT": str(port)}
        process = await self.children.start(
            service, [str(Path(sys.executable).with_name(command))], env=env
        )
        await until_answers(process, f"http://127.0.0.1:{port}/readyz", command)
        return f"http://127.0.0.1:{port}"

    async def create(self, name: str) -> None:
        metadata = {"name": name, "namespace": NAMESPACE}
        spec = {"model": "m", "templateRef": "t"}
        await self.cluster.create(
            {
                "apiVersion": SERVICE.api_version,
                "kind": SERVICE.kind,
                "metadata": metadata,
                "spec": spec,
            }
        )

    async def reported(self, name: str) -> bool:
        """The router's last word on an object can be read."""
        latest = await self.latest(subjects.of_report(key(name), ROUTER))
        return any(
            isinstance(item, Event) and isinstance(item.message, StatusReported) for item in latest
        )

    async def latest(self, *filters: str) -> list[Event | Undecodable]:
        found: list[Event | Undecodable] = []
        async with aclosing(aimbus.follow(self.bus, filters)) as items:
            async for item in items:
                if isinstance(item, CaughtUp):
                    break
                if isinstance(item, Event | Undecodable):
                    found.append(item)
        return found

    async def dead_letters(self, service: str) -> list[DeadLetter]:
        log = aimbus.read_log(self.bus, [subjects.dead_letters(service)])
        return [
            event.message
            async for event in log
            if isinstance(event, Event) and isinstance(event.message, DeadLetter)
        ]

    def aimctl(self, *arguments: str) -> str:
        done = subprocess.run(
            [AIMCTL, *arguments],
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def listed(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            await asyncio.to_thread(self.aimctl, "dead", "-o", "json")
        )
        return rows


async def undecodable(url: str) -> float:
    """The counter, as Prometheus would read it."""
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.get(f"{url}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith('aim_failures_total{kind="undecodable"}')
    )


@pytest.fixture
async def place(tmp_path: Path, external_server: Path | None) -> AsyncIterator[Place]:
    async with (
        embedded_nats(tmp_path / "nats") as nats,
        Children(tmp_path / "log") as children,
        control_plane_place(external_server, children, tmp_path, [*crds(), *rbac()]) as (
            cluster,
            accounts,
        ),
    ):
        bus = await aimbus.connect(nats.url, name="test")
        env = {"AIM_NATS_URL": nats.url, "AIM_NATS_MAX_BYTES": str(1 << 26)}
        yield Place(cluster, bus, children, accounts, env)
        await bus.close()


async def test_poison_stops_nothing_and_waits_for_a_person(place: Place) -> None:
    await place.start(WATCHER)
    router = await place.start(ROUTER)
    for name in (*ON_OBJECTS, REPORTED):
        await place.create(name)
        await eventually(lambda name=name: place.reported(name), f"a report on {name}")  # type: ignore[misc]

    seqs = {
        subject: await place.bus.publisher.resend(subject, data, {"ce-type": "poison"})
        for subject, data in POISON.items()
    }

    async def are_listed() -> bool:
        router_s, watcher_s = await place.dead_letters(ROUTER), await place.dead_letters(WATCHER)
        return len(router_s) == len(POISON) and len(watcher_s) == len(READ_BY_WATCHER)

    await eventually(are_listed, "a dead letter of each service on each message")
    assert {
        dead_letter.subject: dead_letter.seq for dead_letter in await place.dead_letters(ROUTER)
    } == seqs
    assert await undecodable(router) == len(POISON)
    log = [json.loads(line) for line in place.children.log_of(ROUTER).read_text().splitlines()]
    assert {
        (line["subject"], line["seq"]) for line in log if line["event"] == "undecodable"
    } == set(seqs.items())

    async def healed() -> bool:
        of_services = await place.latest(
            subjects.objects(SERVICE.kind), subjects.reports(SERVICE.kind)
        )
        return {item.subject for item in of_services if isinstance(item, Undecodable)} == {
            "aim.object.AIMService.of.too.many.tokens"
        }

    await eventually(healed, "what was hidden is reported again")
    await place.create("later")
    await eventually(lambda: place.reported("later"), "the router goes on")

    await place.children.stop(ROUTER)
    await place.start(ROUTER)
    assert len(await place.dead_letters(ROUTER)) == len(POISON), (
        "a restart wrote dead letters again"
    )

    rows = await place.listed()
    assert {row["subject"]: row["seq"] for row in rows if row["service"] == ROUTER} == seqs
    assert {row["subject"] for row in rows if row["service"] == WATCHER} == READ_BY_WATCHER
    output = await asyncio.to_thread(place.aimctl, "dead", "retry", "--all")
    assert output.count("sent again") == len(POISON)

    async def all_new() -> bool:
        """The message is still undecodable, so there are new dead letters and no old ones."""
        rows = await place.listed()
        return len(rows) == len(POISON) + len(READ_BY_WATCHER) and min(
            row["seq"] for row in rows
        ) > max(seqs.values())

    await eventually(all_new, "new dead letters in place of the old")
    await eventually(healed, "what was hidden is reported again, twice")
