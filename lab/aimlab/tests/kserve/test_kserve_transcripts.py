"""The KServe stand-in and the lab's Deployment controller, held to the recorded statuses of a real
KServe.

Each recording is replayed on the API server double: what was done is done, and both controllers run
until nothing moves. Compared is the InferenceService's whole status (conditions with status,
reason, message and severity; modelStatus; url, address, components; deploymentMode;
observedGeneration), with times and hashes as placeholders, at each settle point: where the
recording was quiet for a while, and at its end. What a real KServe wrote between two settle points
depends on which watch was faster, so of those only one thing is held: the stand-in never writes
conditions that no recording has.
"""

import filecmp
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aimlab.apiserver import deletes, writes
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.controllers import Controllers
from aimlab.apiserver.errors import ApiError
from aimlab.apiserver.store import Change, CollectionKey
from aimlab.controller_loop import Create, Delete, Patch, Write
from aimlab.crds import bundled_crds
from aimlab.informer import Objects
from aimlab.kinds import RESOURCE_QUOTA
from aimlab.kserve import controller
from aimlab.node import workloads
from aimschema.resources import CRD, INFERENCE_SERVICE, NAMESPACE, POD, Resource

Body = dict[str, Any]
FOLDER = Path(__file__).parent / "transcripts"
CASES = sorted(FOLDER.glob("*.jsonl"))
QUIET_S = 0.8
"""How long nothing happened in a recording that had settled."""
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
STOP = "serving.kserve.io/stop"
ISVCS = ("serving.kserve.io", "inferenceservices")


class Lab:
    """The double with KServe's and the Deployments' controllers on it, and a clock that stands
    still."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.cluster = Cluster(lambda: self.now)
        self.garbage = Controllers(self.cluster, lambda: None)
        self.statuses: list[Body] = []
        self.make(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
        for crd in bundled_crds():
            self.make(CRD, crd)
        self.cluster.store.observers.append(self._see)

    def _see(self, key: CollectionKey, change: Change) -> None:
        if key == ISVCS and change.type == "MODIFIED":
            self.statuses.append(change.entry.obj.get("status") or {})

    def _request(self, resource: Resource, name: str = "", subresource: str = "") -> writes.Request:
        served = self.cluster.find(resource.group, resource.version, resource.plural)
        assert served is not None
        return writes.Request(
            resource=served,
            namespace="ns" if resource.namespaced else "",
            name=name,
            subresource=subresource,
        )

    def make(self, resource: Resource, body: Body) -> Body:
        return writes.create(
            self.cluster, self._request(resource), msgspec.json.decode(msgspec.json.encode(body))
        ).body

    def edit(self, resource: Resource, name: str, patch: Body, subresource: str = "") -> None:
        writes.apply_patch(
            self.cluster, self._request(resource, name, subresource), patch, writes.MERGE_PATCH
        )

    def delete(self, resource: Resource, name: str) -> None:
        deletes.delete(self.cluster, self._request(resource, name), deletes.Options())

    def all(self, resource: Resource) -> list[Body]:
        return [
            entry.obj
            for entry in self.cluster.store.collections[resource.group, resource.plural].entries(
                None
            )
        ]

    def settle(self) -> None:
        """Both controllers in turn and the garbage collector, until a round changes nothing."""
        before = -1
        while before != self.cluster.store.version:
            before = self.cluster.store.version
            for plan in (controller.plan, workloads.plan):
                state = Objects(
                    body for resource in controller.WATCHED for body in self.all(resource)
                )
                for write in plan(state, self.now).writes:
                    self._carry_out(write)
            self.garbage.sweep()

    def _carry_out(self, write: Write) -> None:
        try:
            match write:
                case Create(resource=resource, body=body):
                    self.make(resource, body)
                case Patch(resource=resource, name=name, body=patch, subresource=subresource):
                    self.edit(resource, name, patch, subresource or "")
                case Delete(resource=resource, name=name):
                    self.delete(resource, name)
                case _:
                    raise AssertionError(write)
        except ApiError as error:
            if isinstance(write, Create) and error.code == 403 and write.rejected is not None:
                for instead in write.rejected(error.message):
                    self._carry_out(instead)
            elif error.reason not in {"AlreadyExists", "NotFound"}:
                raise

    # --- what was done in the recordings ---

    def do(self, did: str) -> None:
        verb, _, options = did.partition(" {")
        if verb == "applied" and options:
            self.apply(**msgspec.json.decode("{" + options))
        else:
            DOINGS[did](self)

    def apply(self, replicas: int = 1, strategy: Body = ROLLING) -> None:
        container = {
            "name": "kserve-container",
            "image": "model:1",
            "ports": [{"containerPort": 8000}],
        }
        predictor = {
            "minReplicas": replicas,
            "maxReplicas": replicas,
            "containers": [container],
            "deploymentStrategy": strategy,
        }
        head = {
            "apiVersion": INFERENCE_SERVICE.api_version,
            "kind": "InferenceService",
            "metadata": {"name": "s"},
        }
        self.make(INFERENCE_SERVICE, head | {"spec": {"predictor": predictor}})

    def apply_under_restricted(self) -> None:
        self.edit(
            NAMESPACE,
            "ns",
            {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        )
        self.apply()

    def apply_under_quota(self) -> None:
        self.make(
            RESOURCE_QUOTA,
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "q"},
                "spec": {"hard": {"pods": "0"}},
            },
        )
        self.apply()

    def next_image(self) -> None:
        (isvc,) = self.all(INFERENCE_SERVICE)
        (container,) = isvc["spec"]["predictor"]["containers"]
        self.edit(
            INFERENCE_SERVICE,
            "s",
            {"spec": {"predictor": {"containers": [container | {"image": "model:2"}]}}},
        )

    def pod(
        self, state: Body, *, last: Body | None = None, ready: bool = False, phase: str = "Running"
    ) -> None:
        """One pod that is not so yet."""
        status = {
            "name": "kserve-container",
            "ready": ready,
            "state": state,
            "lastState": last or {},
        }
        name = next(
            pod["metadata"]["name"]
            for pod in self.all(POD)
            if (pod["status"].get("containerStatuses") or [None])[0] != status
        )
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        self.edit(
            POD,
            name,
            {"status": {"phase": phase, "conditions": conditions, "containerStatuses": [status]}},
            "status",
        )

    def crash(self, exit_code: int, reason: str) -> None:
        looping = {"waiting": {"reason": "CrashLoopBackOff"}}
        self.pod(looping, last={"terminated": {"exitCode": exit_code, "reason": reason}})


DOINGS: dict[str, Callable[[Lab], None]] = {
    "applied under restricted": Lab.apply_under_restricted,
    "applied under quota pods=0": Lab.apply_under_quota,
    "applied image 2": Lab.next_image,
    "replicas 1": lambda lab: lab.edit(
        INFERENCE_SERVICE, "s", {"spec": {"predictor": {"minReplicas": 1, "maxReplicas": 1}}}
    ),
    "annotation stop": lambda lab: lab.edit(
        INFERENCE_SERVICE, "s", {"metadata": {"annotations": {STOP: "true"}}}
    ),
    "annotation removed": lambda lab: lab.edit(
        INFERENCE_SERVICE, "s", {"metadata": {"annotations": {STOP: None}}}
    ),
    "pod ready": lambda lab: lab.pod({"running": {}}, ready=True),
    "pod runs, not ready": lambda lab: lab.pod({"running": {}}),
    "ImagePullBackOff": lambda lab: lab.pod(
        {"waiting": {"reason": "ImagePullBackOff"}}, phase="Pending"
    ),
    "pod CrashLoopBackOff, exit 1 Error": lambda lab: lab.crash(1, "Error"),
    "pod CrashLoopBackOff, exit 137 OOMKilled": lambda lab: lab.crash(137, "OOMKilled"),
    "pod deleted": lambda lab: lab.delete(POD, lab.all(POD)[0]["metadata"]["name"]),
}


def lines_of(case: Path) -> list[Body]:
    return [msgspec.json.decode(line) for line in case.read_text().splitlines()]


def settled(lines: list[Body]) -> list[tuple[list[str], Body]]:
    """What was done until each settle point, and the status there."""
    found: list[tuple[list[str], Body]] = []
    done: list[str] = []
    status: Body = {}
    for line, after in zip(lines, [*lines[1:], {"t": float("inf")}], strict=True):
        if "did" in line:
            done.append(line["did"])
        elif line["kind"] == "InferenceService":
            status = line["status"]
        if after["t"] - line["t"] >= QUIET_S and status:
            found.append((done, status))
            done = []
    return found


HASHED = re.compile(r"s-predictor-[0-9a-z]{8,10}(-[a-z0-9]{5})?")


def bare(status: Body) -> Body:
    """A status without the parts that differ from run to run, in a fixed order."""
    text = (
        HASHED.sub("s-predictor-<hash>", msgspec.json.encode(status).decode())
        .replace("-ns.", "-<ns>.")
        .replace(".ns.", ".<ns>.")
    )
    made: Body = msgspec.json.decode(text)
    conditions = [
        condition | {"lastTransitionTime": "<time>"} for condition in made.get("conditions", [])
    ]
    return made | {"conditions": sorted(conditions, key=lambda condition: str(condition["type"]))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_status_settles_as_a_real_kserve_settles(case: Path) -> None:
    lab = Lab()
    for done, status in settled(lines_of(case)):
        for did in done:
            lab.do(did)
            lab.settle()
        assert bare(lab.statuses[-1]) == bare(status), f"after {done}"


def verdicts_of(statuses: list[Body]) -> set[str]:
    """All conditions of each status on a line, without messages."""
    return {
        " ".join(
            f"{one['type']}={one['status']}/{one.get('reason', '')}"
            for one in bare(status)["conditions"]
        )
        for status in statuses
    }


def test_only_conditions_of_a_real_kserve_are_written() -> None:
    recorded: list[Body] = []
    written: list[Body] = []
    for case in CASES:
        lab = Lab()
        lines = lines_of(case)
        recorded += [
            line["status"]
            for line in lines
            if line.get("kind") == "InferenceService" and line["status"]
        ]
        for line in lines:
            if "did" in line:
                lab.do(line["did"])
                lab.settle()
        written += lab.statuses
    assert verdicts_of(written) - verdicts_of(recorded) == set()


def test_every_recorded_deed_has_settled_once() -> None:
    deeds = {
        line["did"].partition(" {")[0] for case in CASES for line in lines_of(case) if "did" in line
    }
    assert deeds - {"applied"} == DOINGS.keys()
    assert {
        did for case in CASES for done, _ in settled(lines_of(case)) for did in done
    } >= DOINGS.keys()


def test_the_fixtures_are_the_recording() -> None:
    root = Path(__file__).parents[4]
    recording = next(
        (
            up / "shared" / "kserve-transcripts"
            for up in root.parents
            if (up / "shared" / "kserve-transcripts").is_dir()
        ),
        None,
    )
    if recording is None:
        pytest.skip(
            "shared/kserve-transcripts is not beside the repository, so there is nothing to compare"
            " the fixtures with"
        )
    assert [case.name for case in CASES] == sorted(file.name for file in recording.glob("*.jsonl"))
    assert [
        case.name for case in CASES if not filecmp.cmp(recording / case.name, case, shallow=False)
    ] == []
