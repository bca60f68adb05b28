"""Runs of the simulation: the fleet is brought up step by step, disturbed, and comes to rest;
the node's part is here too."""

import datetime
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aim_testing.chaos import fleet
from aim_testing.chaos.chance import chance
from aim_testing.chaos.fastnode import Truth, outcome_of
from aim_testing.chaos.observer import judge
from aim_testing.chaos.outcome import COMPARED, State, plain
from aim_testing.chaos.sim import ALL_KINDS, Bus, Clock, Cluster, Process, services, synced
from aimcontroller.projection import changed_from_response
from aimlab.kinds import Body, owner_reference, stamp
from aimlab.node.pv_binder import STORAGE_CLASSES
from aimschema import labels
from aimschema.resources import (
    CLAIM,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    NAMESPACE,
    POD,
    ROUTE,
    SERVICE,
    Key,
    key_of,
)

LONGEST_WAIT_S = 1500.0
MOST_STEPS = 15_000
Outcome = Callable[[Body, Truth], tuple[int, str, str]]
"""Exit code, log and termination message of a Job."""
FLEET = fleet.Fleet(namespaces=2, templates=3, services=3, flaky=True)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """`what` happens at step `step`, to the service of this number."""

    step: int
    what: str
    service: int


class History:
    """One run. `rng` decides which of the possible steps is next; without it they come in turn.

    `to_create` and what is in the cluster may be changed before `run`. `outcome` says how Jobs end;
    `stuck` are kinds that node, KServe and gateway leave alone.
    """

    def __init__(self, rng: random.Random | None, size: fleet.Fleet = FLEET) -> None:
        self.outcome: Outcome = partial(outcome_of, flaky=True)
        self.stuck: frozenset[str] = frozenset()
        self.ends_at = datetime.datetime.max.replace(tzinfo=datetime.UTC)
        self.truth = Truth()
        self.clock = Clock()
        self.bus = Bus()
        self.cluster = self.make_cluster()
        self.steps = 0
        self._rng = rng
        self._logs: dict[Key, str] = {}
        self._edits = fleet.edits(size)
        self.to_create = [body for body in fleet.manifests(size) if body["kind"] != NAMESPACE.kind]
        self.cluster.changed = self.bus.publish
        self.processes = [
            Process(service, self.bus, self.cluster, self.clock, self._logs)
            for service in services()
        ]
        for body in (*STORAGE_CLASSES, _gateway()):
            self.cluster.create(body)
        for marker in synced(ALL_KINDS):
            self.bus.publish(marker)
        self.bus.readers += self.processes
        for process in self.processes:
            process.restart()

    def make_cluster(self) -> Cluster:
        return Cluster(self.clock, partial(judge, truth=self.truth))

    def run(self, disturbances: tuple[Disturbance, ...] = ()) -> State:
        """To the end, when nothing can happen any more; gives the end state."""
        due = {disturbance.step: disturbance for disturbance in disturbances}
        while possible := self._possible():
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise AssertionError(
                    f"it does not come to rest: {len(possible)} steps are still possible after"
                    f" {self.steps}"
                )
            disturbance = due.get(self.steps)
            if disturbance is not None:
                self._disturb(disturbance)
            else:
                (self._rng.choice(possible) if self._rng is not None else possible[0])()
        compared = {resource.kind for resource in COMPARED}
        return plain(body for key, body in self.cluster.objects.items() if key.kind in compared)

    def _possible(self) -> list[Callable[[], object]]:
        steps: list[Callable[[], object]] = []
        if self.to_create:
            steps.append(lambda: self.cluster.create(self.to_create.pop(0)))
        elif self._edits:
            steps.append(lambda: self._edit(*self._edits.pop(0)))
        for process in self.processes:
            steps += [partial(process.deliver, subject) for subject in process.unheard]
            steps += [partial(process.work, key) for key in process.queue]
        steps += self._node_steps()
        return steps or self._wait()

    def _edit(self, namespace: str, name: str, spec: Body) -> None:
        service = self.cluster.objects.get(Key(SERVICE.kind, namespace, name))
        if service is not None:
            self.cluster.patch(service, spec=spec)

    def _wait(self) -> list[Callable[[], object]]:
        """Nothing to do now: let the next timer run out, if it is not too far off (caches are
        marked as used every hour, for ever)."""
        times = [
            (at, number, key)
            for number, process in enumerate(self.processes)
            for key, at in process.timers.items()
        ]
        if not times:
            return []
        at, number, key = min(times, key=lambda time: (time[0], time[1], str(time[2])))
        if (at - self.clock.now).total_seconds() > LONGEST_WAIT_S or at > self.ends_at:
            return []
        return [partial(self._fire, at, number, key)]

    def _fire(self, at: datetime.datetime, number: int, key: Key) -> None:
        self.clock.now = max(self.clock.now, at)
        del self.processes[number].timers[key]
        self.processes[number].queue.setdefault(key)

    def _disturb(self, disturbance: Disturbance) -> None:
        rng = chance(disturbance.step) if self._rng is None else self._rng
        process = self.processes[disturbance.service]
        match disturbance.what:
            case "again":
                process.deliver_again(rng)
            case "skip":
                for subject in list(process.unheard):
                    process.skip_to_last(subject)
            case "kill":
                process.restart()
            case "kill-at-work" if process.queue:
                process.work(rng.choice(list(process.queue)), dies_before=rng.randint(0, 5))
            case "reload":
                process.reload()
            case "wipe":
                self._wipe()
            case "time":
                self._deliver_all()
                self.clock.now += datetime.timedelta(seconds=rng.choice([1, 11, 31, 61]))
            case "lag":  # nothing is delivered meanwhile
                self.clock.now += datetime.timedelta(seconds=rng.choice([1, 11, 31, 61]))

    def _deliver_all(self) -> None:
        for process in self.processes:
            for subject in list(process.unheard):
                while subject in process.unheard:
                    process.deliver(subject)

    def _wipe(self) -> None:
        """The bus is lost with all reports; the watcher publishes the cluster again and every
        service reloads."""
        self.bus.latest.clear()
        self.bus.seq = 0
        for process in self.processes:
            process.unheard.clear()
        self.bus.readers.clear()
        for body in self.cluster.objects.values():
            self.bus.publish(changed_from_response(body))
        for marker in synced(ALL_KINDS):
            self.bus.publish(marker)
        self.bus.readers += self.processes
        for process in self.processes:
            process.reload()

    def _node_steps(self) -> list[Callable[[], object]]:
        """What node, KServe and gateway could do next."""
        steps: list[Callable[[], object]] = []
        for claim in self._moving(CLAIM.kind):
            if "volumeName" not in claim["spec"]:
                steps.append(
                    partial(
                        self.cluster.patch,
                        claim,
                        spec={
                            "storageClassName": "lab",
                            "volumeName": f"pvc-{claim['metadata']['uid']}",
                        },
                    )
                )
            elif claim.get("status", {}).get("phase") != "Bound":
                steps.append(partial(self.cluster.patch, claim, status={"phase": "Bound"}))
        steps += [
            partial(self._job_step, job)
            for job in self._moving(JOB.kind)
            if "conditions" not in job.get("status", {})
        ]
        for isvc in self._moving(INFERENCE_SERVICE.kind):
            if isvc.get("status", {}).get("observed") != isvc["metadata"]["generation"]:
                steps.append(partial(self._serve, isvc))
        for route in self._moving(ROUTE.kind):
            if route.get("status", {}).get("observed") != route["metadata"]["generation"]:
                steps.append(partial(self._accept, route))
        return steps

    def _moving(self, kind: str) -> list[Body]:
        return [] if kind in self.stuck else self.cluster.of(kind)

    def _job_step(self, job: Body) -> None:
        """No pod yet, running, ended, reported."""
        uid = job["metadata"]["uid"]
        pod = next(
            (
                pod
                for pod in self.cluster.of(POD.kind)
                if pod["metadata"]["ownerReferences"][0]["uid"] == uid
            ),
            None,
        )
        if pod is None:
            self._start_pod(job)
        elif pod["status"]["phase"] == "Running":
            self._end_pod(job, pod)
        else:
            kind = "Complete" if pod["status"]["phase"] == "Succeeded" else "Failed"
            condition = {
                "type": kind,
                "status": "True",
                "reason": kind,
                "message": "",
                "lastTransitionTime": stamp(self.clock.now),
            }
            self.cluster.patch(job, status={"conditions": [condition]})

    def _start_pod(self, job: Body) -> None:
        metadata = {
            "name": f"{job['metadata']['name']}-pod",
            "namespace": job["metadata"]["namespace"],
            "ownerReferences": [owner_reference(job)],
            "labels": job["spec"]["template"]["metadata"]["labels"],
        }
        status = {"phase": "Running", "startedAt": self.clock.now.timestamp()}
        self.cluster.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": status}
        )

    def _end_pod(self, job: Body, pod: Body) -> None:
        exit_code, log, message = self.outcome(job, self.truth)
        self._logs[key_of(pod)] = log
        self.truth.remember(job, exit_code, pod["status"]["startedAt"], self.clock.now.timestamp())
        container = {
            "name": job["spec"]["template"]["spec"]["containers"][0]["name"],
            "state": {"terminated": {"exitCode": exit_code, "message": message}},
        }
        phase = "Failed" if exit_code else "Succeeded"
        self.cluster.patch(pod, status={"phase": phase, "containerStatuses": [container]})

    def _serve(self, isvc: Body) -> None:
        metadata, predictor = isvc["metadata"], isvc["spec"]["predictor"]
        for number in range(int(predictor["minReplicas"])):
            own = {
                "name": f"{metadata['name']}-predictor-{number}",
                "namespace": metadata["namespace"],
                "ownerReferences": [owner_reference(isvc)],
            }
            named = own | {
                "labels": metadata["labels"] | {labels.KSERVE_ISVC_LABEL: metadata["name"]}
            }
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            if Key(POD.kind, named["namespace"], named["name"]) not in self.cluster.objects:
                self.cluster.create(
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": named,
                        "spec": {},
                        "status": status,
                    }
                )
        ready = "True" if predictor["minReplicas"] else "False"
        self.cluster.patch(
            isvc,
            status={
                "observed": metadata["generation"],
                "conditions": [{"type": "Ready", "status": ready}],
            },
        )

    def _accept(self, route: Body) -> None:
        generation = route["metadata"]["generation"]
        conditions = [
            {"type": kind, "status": "True", "reason": kind, "observedGeneration": generation}
            for kind in ("Accepted", "ResolvedRefs")
        ]
        parents = [{"parentRef": route["spec"]["parentRefs"][0], "conditions": conditions}]
        self.cluster.patch(route, status={"observed": generation, "parents": parents})


def _gateway() -> Body:
    metadata = {"name": fleet.GATEWAY, "namespace": fleet.GATEWAY_NAMESPACE}
    status = {"addresses": [{"type": "Hostname", "value": "gateway.test"}]}
    spec = {"listeners": [fleet.LISTENER]}
    return {
        "apiVersion": GATEWAY.api_version,
        "kind": GATEWAY.kind,
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }
