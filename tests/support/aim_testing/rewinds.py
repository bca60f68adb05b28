"""Random edits of AIM objects by three managers, and random rewinds, some of them killed:
`python -m aim_testing.rewinds --seed 1`.

After each edit the specs are noted, with the time. A rewind to that time must end with the noted
specs, byte for byte, but for what it names: immutable fields, and literal values of environment
variables that the object no longer has.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import aimbus
from aim_watcher.streams import publish_cluster
from aimbus import Bus, Event, NatsServer, read_history
from aimcontroller.health import Health
from aimkube import Cluster, NotFound
from aimlab.apiserver import ApiServer
from aimschema.messages import KindSynced, SpecVersion
from aimschema.resources import (
    AIM_KINDS,
    CACHE,
    CONFIG,
    RESOURCES,
    SERVICE,
    TEMPLATE,
    WATCHED,
    Key,
    Resource,
    key_of,
)

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
NAMESPACE = "ml"
MANAGERS = ("kubectl-edit", "team-pipeline", "dashboard")
KINDS = (SERVICE,) * 8 + (CACHE,) * 6 + (TEMPLATE,) * 4 + (CONFIG,) * 2
KEYS = tuple(
    Key(kind.kind, NAMESPACE, f"{kind.short_names[0]}-{number}")
    for number, kind in enumerate(KINDS)
)
Body = dict[str, Any]


@dataclass
class Outcome:
    """What happened. `wrong` is empty if all is as it must be."""

    edits: int = 0
    rewinds: int = 0
    killed: int = 0
    immutable: int = 0
    literals: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Moment:
    """The specs at a time."""

    time: datetime.datetime
    specs: dict[Key, Any]


@dataclass
class World:
    """An API server, NATS and a watcher."""

    cluster: Cluster
    bus: Bus
    env: dict[str, str]
    chance: random.Random
    moments: list[Moment] = field(default_factory=list)

    async def edit(self) -> None:
        """Change, delete or create one object, until it is recorded."""
        key = self.chance.choice(KEYS)
        kind = RESOURCES[key.kind]
        live = await self._read(key)
        manager = self.chance.choice(MANAGERS)
        if live is not None and self.chance.random() < 0.1:
            await self.cluster.delete(kind, NAMESPACE, key.name)
        else:
            spec = self._spec(kind, None if live is None else live["spec"])
            await self.cluster.apply(_body(kind, key.name, spec), manager=manager)
        await self.note()

    async def note(self) -> None:
        """Note all specs, once the history has them."""
        specs = await self.specs()
        async with asyncio.timeout(30):
            while await self._recorded() != specs.keys():  # noqa: ASYNC110 (the stream has no event)
                await asyncio.sleep(0.005)
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(milliseconds=1)
        self.moments.append(Moment(now, {key: spec for (key, *_), spec in specs.items()}))
        await asyncio.sleep(0.002)

    async def specs(self) -> dict[tuple[Key, str, int], Any]:
        """By key, uid and generation."""
        found = {}
        for kind in {kind.kind: kind for kind in KINDS}.values():
            for body in (await self.cluster.list(kind, NAMESPACE)).items:
                metadata = body["metadata"]
                place = (key_of(body), metadata["uid"], metadata["generation"])
                found[place] = body["spec"]
        return found

    async def rewind(self, outcome: Outcome, *, kill: bool) -> None:
        """To a random moment, and compare."""
        moment = self.chance.choice(self.moments)
        to = moment.time.isoformat()
        if kill:
            outcome.killed += await self._killed_rewind(to)
        code, text = await self.aimctl("rewind", "-n", NAMESPACE, "--to", to, "--yes", "-o", "json")
        outcome.rewinds += 1
        if code not in {0, 2}:
            outcome.wrong.append(f"rewind to {to} ended with {code}: {text}")
            return
        named: dict[str, set[str]] = {}
        for each in json.loads(text)["skipped"]:
            named.setdefault(each["object"], set()).add(each["path"])
            outcome.immutable += each["immutable"]
            outcome.literals += not each["immutable"]
        await self.note()
        current = self.moments[-1].specs
        for key, spec in moment.specs.items():
            expected = _without(spec, named.get(str(key), set()))
            actual = _without(current.get(key), named.get(str(key), set()))
            if _bytes(expected) != _bytes(actual):
                outcome.wrong.append(f"{key}: {expected} is {actual} after a rewind to {to}")

    async def aimctl(self, *arguments: str) -> tuple[int | None, str]:
        process = await self._start(*arguments)
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    async def _killed_rewind(self, to: str) -> bool:
        """Kill it with SIGKILL after some of the writes; whether it was still at work."""
        process = await self._start("rewind", "-n", NAMESPACE, "--to", to, "--yes")
        assert process.stdout is not None
        left = self.chance.randint(1, 4)
        async for line in process.stdout:
            left -= line.startswith(b"written:")
            if left == 0:
                process.kill()
                break
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait() < 0

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aimctl", *arguments,
            env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    async def _read(self, key: Key) -> Body | None:
        try:
            return await self.cluster.get(RESOURCES[key.kind], NAMESPACE, key.name)
        except NotFound:
            return None

    async def _recorded(self) -> set[tuple[Key, str, int]]:
        found = set()
        async for item in read_history(self.bus, ["aimhistory.>"], newest_only=True):
            if isinstance(item, Event) and isinstance(item.message, SpecVersion):
                message = item.message
                key = Key(message.kind, message.namespace, message.name)
                found.add((key, message.uid, message.generation))
        return found

    def _spec(self, kind: Resource, before: Any) -> Body:
        chance = self.chance
        match kind.kind:
            case SERVICE.kind:
                return {
                    "model": f"m{chance.randint(1, 3)}",
                    "templateRef": f"t{chance.randint(1, 3)}",
                    "replicas": chance.randint(0, 5),
                    **({"cacheModel": False} if chance.random() < 0.3 else {}),
                }
            case CACHE.kind:
                names = chance.sample(["A", "B", "C"], chance.randint(0, 3))
                env = [{"name": name, "value": f"v{chance.randint(1, 2)}"} for name in names]
                uri = before["sourceUri"] if before else f"hf://a/m{chance.randint(1, 3)}"
                return {
                    "sourceUri": uri,
                    "size": f"{chance.randint(1, 9)}Gi",
                    **({"env": env} if env else {}),
                }
            case TEMPLATE.kind:
                fixed = before or {
                    "model": "m1",
                    "metric": "latency",
                    "gpusPerReplica": chance.randint(1, 4),
                    "gpuModel": "MI300X",
                    "tensorParallelism": 1,
                }
                return {**fixed, "warmCache": chance.random() < 0.5}
            case _:
                return {
                    "cacheStorageClassName": f"class{chance.randint(1, 3)}",
                    "images": {"imagePullSecrets": [f"s{chance.randint(1, 2)}"]},
                }


def _body(kind: Resource, name: str, spec: Body) -> Body:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


def _without(spec: Any, paths: set[str]) -> Any:
    """The spec without what was named: `spec.sourceUri`, `spec.env.A`."""
    if not isinstance(spec, dict):
        return spec
    rest = {name: value for name, value in spec.items() if f"spec.{name}" not in paths}
    if "env" in rest:
        rest["env"] = [each for each in rest["env"] if f"spec.env.{each['name']}" not in paths]
    return {name: value for name, value in rest.items() if name != "env" or value}


def _bytes(spec: Any) -> str:
    return json.dumps(spec, sort_keys=True)


@contextlib.asynccontextmanager
async def world(folder: Path, seed: int) -> AsyncIterator[World]:
    """Servers of its own, until the block ends."""
    api, nats = ApiServer(), NatsServer(folder / "nats")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(await api.start())))
    url = await nats.start()
    cluster = await Cluster.connect(str(kubeconfig))
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for file in sorted(CRDS.glob("*.yaml")):
        await cluster.create(yaml.safe_load(file.read_text()))
    for kind in AIM_KINDS:
        while not await cluster.serves(kind):  # noqa: ASYNC110 (the API server has no event for it)
            await asyncio.sleep(0.02)
    bus = await aimbus.connect(url, name="aim-watcher")
    watcher = asyncio.create_task(
        publish_cluster(bus, cluster, Health(), replicas=1, max_bytes=1 << 28)
    )
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "AIM_NATS_URL": url, "NO_COLOR": "1"}
    try:
        await _until_synced(bus)
        yield World(cluster, bus, env, random.Random(seed))  # noqa: S311 (reproducible)
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])
        await bus.close()
        await cluster.close()
        await nats.kill()
        await api.stop()


async def _until_synced(bus: Bus) -> None:
    """Until every kind is listed, or known not to be served."""
    kinds: set[str] = set()
    async with contextlib.aclosing(aimbus.follow(bus, ["aim.synced.>"])) as items:
        async for item in items:
            if isinstance(item, Event) and isinstance(item.message, KindSynced):
                kinds.add(item.message.kind)
            if len(kinds) == len(WATCHED):
                return


def _kubeconfig(url: str) -> Body:
    return {
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }


async def run(folder: Path, seed: int, edits: int, rewinds: int, kills: int) -> Outcome:
    """Edits, with the rewinds between them; the first `kills` of these are killed once."""
    outcome = Outcome()
    async with world(folder, seed) as here:
        await here.note()
        here.moments.clear()
        for number in range(1, edits + 1):
            await here.edit()
            outcome.edits += 1
            if number * rewinds // edits > outcome.rewinds:
                await here.rewind(outcome, kill=outcome.killed < kills)
            if outcome.wrong:
                break
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("seed", 1), ("edits", 500), ("rewinds", 50), ("kills", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    found = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aim-rewinds-") as folder:
        outcome = asyncio.run(
            run(Path(folder), found.seed, found.edits, found.rewinds, found.kills)
        )
    print(outcome)
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
