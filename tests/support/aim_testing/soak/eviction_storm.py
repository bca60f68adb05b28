"""Many models in a namespace whose quota has room for few of them, and services that start and stop
at random. All services run; events come late, twice or not at all, and services are killed.

At all times: no cache that is used is evicted, the storage of all claims is within the quota, and
no younger cache gets storage before an older one. In the end: every service that is left runs.

    python -m aim_testing.soak.eviction_storm --seed 1 --minutes 5
"""

import argparse
import datetime
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aim_testing.chaos.chance import chance
from aim_testing.chaos.observer import Get
from aim_testing.soak import inputs
from aim_testing.soak.simulation import Protecting, Simulation
from aim_testing.soak.state import Body, claims_of, is_deleting, phase
from aimschema import names, quantities
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    INFERENCE_SERVICE,
    MODEL,
    POD,
    SECRET,
    SERVICE,
    TEMPLATE,
    Key,
    key_of,
)

PLACE = inputs.NAMESPACES[0]
TICK_S = (1, 10)
REST_TICKS = 600


@dataclass(frozen=True, slots=True)
class Size:
    """`room`: how many caches the quota has room for. `services`: about how many run at a time.
    `pace`: how many of them start or stop at most in a tick."""

    caches: int
    room: int
    services: int
    pace: int


FULL = Size(caches=200, room=50, services=45, pace=12)
SHORT = Size(caches=24, room=6, services=6, pace=3)


def manifests(size: Size) -> Iterator[Body]:
    yield inputs.an_object(SECRET, PLACE, inputs.KEYS) | {"stringData": {"token": "hf_storm"}}
    caching = {"quota": f"{size.room}Gi"}
    yield inputs.an_object(CONFIG, PLACE, "default", inputs.config_spec() | {"caching": caching})
    for model in range(size.caches):
        image = {"name": inputs.model_name(model), "image": inputs.image(model, "good")}
        yield inputs.an_object(MODEL, None, f"m{model}", image)
        yield inputs.an_object(TEMPLATE, PLACE, f"t{model}", inputs.template_spec(model))


def service(model: int) -> Body:
    spec = {
        "model": inputs.model_name(model),
        "templateRef": f"t{model}",
        "replicas": 1,
        "configRef": "default",
    }
    return inputs.an_object(SERVICE, PLACE, f"s{model}", spec)


def judge(_before: Body | None, _after: Body, _: Get) -> list[str]:
    """The order of status writes is judged elsewhere (tests/soak)."""
    return []


class Watched(Protecting):
    """Reports what must never happen, at the write that does it. `evicted`: caches that had
    storage."""

    limit_bytes = 0
    evicted = 0

    def create(self, body: Body) -> Body:
        created = super().create(body)
        if body["kind"] == CLAIM.kind:
            self._judge_storage(created)
        return created

    def delete(self, key: Key, uid: str | None = None) -> None:
        existing = self.objects.get(key)
        claim = Key(CLAIM.kind, key.namespace, names.cache_claim(key.name))
        if key.kind == CACHE.kind and existing is not None and claim in self.objects:
            self.evicted += 1
            self.violations += [f"evicted {key.name}, used by {by}" for by in self.users(existing)]
        super().delete(key, uid)

    def users(self, cache: Body) -> Iterator[str]:
        claim = names.cache_claim(cache["metadata"]["name"])
        model = cache["spec"]["sourceUri"].rpartition("-")[2]
        for each in self.of(SERVICE.kind):
            if each["spec"]["templateRef"] == f"t{model}" and not is_deleting(each):
                yield f"AIMService {each['metadata']['name']}"
        for runtime in self.of(INFERENCE_SERVICE.kind):
            if claim in claims_of({"spec": runtime["spec"]["predictor"]}):
                yield f"InferenceService {runtime['metadata']['name']}"
        for pod in self.of(POD.kind):
            if claim in claims_of(pod) and phase(pod) not in {"Succeeded", "Failed"}:
                yield f"pod {pod['metadata']['name']}"

    def _judge_storage(self, claim: Body) -> None:
        claims = self.of(CLAIM.kind)
        used_bytes = sum(
            quantities.parse(each["spec"]["resources"]["requests"]["storage"]) for each in claims
        )
        if used_bytes > self.limit_bytes:
            self.violations.append(f"{used_bytes} bytes of storage, allowed {self.limit_bytes}")
        with_claim = {each["metadata"]["ownerReferences"][0]["name"] for each in claims}
        (own,) = claim["metadata"]["ownerReferences"]
        created = self.objects.get(Key(CACHE.kind, PLACE, own["name"]))
        if created is None:
            return
        for cache in self.of(CACHE.kind):
            waits = cache["metadata"]["name"] not in with_claim and not is_deleting(cache)
            if waits and _age(cache) < _age(created):
                self.violations.append(f"{own['name']} overtakes {cache['metadata']['name']}")


def _age(cache: Body) -> tuple[str, str]:
    return cache["metadata"]["creationTimestamp"], cache["metadata"]["name"]


class Storm(Simulation):
    def __init__(self, rng: random.Random, size: Size) -> None:
        super().__init__(rng)
        self.size = size
        self.started = 0
        self.to_create = []
        assert isinstance(self.cluster, Watched)
        self.cluster.limit_bytes = size.room * quantities.GI
        for body in manifests(size):
            self.cluster.create(body)

    def make_cluster(self) -> Protecting:
        return Watched(self.clock, judge)

    @property
    def services(self) -> list[Body]:
        return [each for each in self.cluster.of(SERVICE.kind) if not is_deleting(each)]

    def tick(self) -> None:
        """Some seconds in which most, but not all, of what can happen does."""
        self.clock.now += datetime.timedelta(seconds=self.rng.randint(*TICK_S))
        for step in self._node_steps():
            if self.rng.random() < 0.8:
                step()
        for process in self.processes:
            for key, at in list(process.timers.items()):
                if at <= self.clock.now:
                    del process.timers[key]
                    process.queue.setdefault(key)
            heard = list(process.unheard)
            self.rng.shuffle(heard)
            for subject in heard:
                while subject in process.unheard and self.rng.random() < 0.9:
                    process.deliver(subject)
            keys = list(process.queue)
            self.rng.shuffle(keys)
            for key in keys:
                if self.rng.random() < 0.9:
                    process.work(key)

    def disturb(self) -> None:
        """A fault of one service, or an event that comes twice."""
        process = self.rng.choice(self.processes)
        match self.rng.choice(["kill", "kill-at-work", "again", "again", "reload"]):
            case "kill":
                process.restart()
            case "kill-at-work" if process.queue:
                process.work(self.rng.choice(list(process.queue)), self.rng.randint(0, 5))
            case "again":
                process.deliver_again(self.rng)
            case "reload":
                process.reload()
            case _:
                pass

    def start_or_stop(self) -> None:
        running = self.services
        if running and self.rng.random() < len(running) / self.size.services / 2:
            self.cluster.delete(key_of(self.rng.choice(running)))
            return
        model = self.rng.randrange(self.size.caches)
        if Key(SERVICE.kind, PLACE, f"s{model}") not in self.cluster.objects:
            self.started += 1
            self.cluster.create(service(model))

    def fill(self) -> None:
        """The quota is used up, and every service has stopped."""
        for model in range(self.size.room):
            self.cluster.create(service(model))
        self.settle(self.size.room)
        self.settle(0)

    def settle(self, left: int) -> None:
        """Stop all services but `left`, and wait until nothing changes any more."""
        running = self.services
        self.rng.shuffle(running)
        for each in running[left:]:
            self.cluster.delete(key_of(each))
        for _ in range(REST_TICKS):
            if all((each.get("status") or {}).get("status") == "Running" for each in self.services):
                return
            self.tick()


@dataclass(frozen=True, slots=True)
class Outcome:
    started: int
    evicted: int
    left: int
    findings: list[str]


def run(seed: int, size: Size, minutes: float, *, wipes: bool = True) -> Outcome:
    storm = Storm(chance(seed), size)
    storm.fill()
    ends_at = storm.clock.now + datetime.timedelta(minutes=minutes)
    while storm.clock.now < ends_at:
        for _ in range(storm.rng.randint(0, size.pace)):
            storm.start_or_stop()
        if storm.rng.random() < 0.2:
            storm.disturb()
        if wipes and storm.rng.random() < 0.01:
            storm._wipe()
        storm.tick()
    storm.settle(size.room)
    assert isinstance(storm.cluster, Watched)
    findings = list(dict.fromkeys(storm.cluster.violations))
    for each in storm.services:
        state = (each.get("status") or {}).get("status")
        if state != "Running":
            findings.append(f"AIMService {each['metadata']['name']} is {state} in the end")
    return Outcome(storm.started, storm.cluster.evicted, len(storm.services), findings)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5, help="simulated; default 5")
    chosen = parser.parse_args()
    since_s = time.process_time()
    found = run(chosen.seed, FULL, chosen.minutes)
    print(
        f"seed {chosen.seed}: {FULL.caches} models, quota for {FULL.room}, {found.started} services"
        f" started, {found.evicted} caches evicted, {found.left} services left,"
        f" {time.process_time() - since_s:.0f} CPU-s"
    )
    print("\n".join(found.findings) or "no findings")
    return bool(found.findings)


if __name__ == "__main__":
    sys.exit(main())
