"""The cacher against a small simulated cluster. Jobs fail, messages come late or twice, and the bus
is wiped.

Safety: nothing is downloaded again once the volume is filled, and no two downloads run at once.

Liveness: once downloads succeed, the cache becomes Available and its Jobs are deleted.
"""

import copy
import datetime
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_cacher.job_options import JobOptions
from aim_cacher.plan import plan
from aim_cacher.render import CONTAINER
from aimcontroller import testing
from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.plan import Report
from aimcontroller.projection import Projection, changed_from_response, fold
from aimcontroller.testing import NAMESPACE, NOW, Body
from aimschema import labels
from aimschema.messages import ObjectChanged, ObjectDeleted, StatusReported, timestamp
from aimschema.resources import CACHE, CLAIM, JOB, POD, Key, key_of

CACHE_KEY = Key(CACHE.kind, NAMESPACE, "c")
EXIT_CODES = [10, 11, 12, 13, 20, 137]


class Simulation:
    """The cluster (`objects`), the state that the cacher has of it (`state`), and the messages
    that it has not received yet (`mail`)."""

    def __init__(self, outcomes: list[int], *, sized: bool) -> None:
        self.outcomes = list(outcomes)
        self.now = NOW
        self.versions = itertools.count(1)
        self.objects: dict[Key, Body] = {}
        self.mail: list[ObjectChanged | ObjectDeleted | StatusReported] = []
        self.reports: dict[str, StatusReported] = {}
        self.downloads = 0
        self.filled = False
        self.state = Projection()
        self.put(testing.storage_class())
        spec = {"sourceUri": "hf://org/model"} | ({"size": "20Gi"} if sized else {})
        self.put(testing.cr(CACHE.kind, "c", spec))
        self.deliver_all()

    def put(self, body: Body) -> Body:
        body = copy.deepcopy(body)
        key = key_of(body)
        body["metadata"] |= {
            "resourceVersion": str(next(self.versions)),
            "uid": body["metadata"].get("uid") or f"{key.name}-{next(self.versions)}",
        }
        body["metadata"].setdefault("creationTimestamp", timestamp(self.now))
        self.objects[key] = body
        self.mail.append(testing.changed(copy.deepcopy(body)))
        return body

    def remove(self, key: Key) -> None:
        body = self.objects.pop(key)
        uid = body["metadata"]["uid"]
        version = str(next(self.versions))
        self.mail.append(
            ObjectDeleted(
                kind=key.kind,
                namespace=key.namespace,
                name=key.name,
                uid=uid,
                resource_version=version,
                object=body,
            )
        )
        for pod in [
            k
            for k, b in self.objects.items()
            if any(o["uid"] == uid for o in b["metadata"].get("ownerReferences", ()))
        ]:
            self.remove(pod)

    def deliver_all(self) -> None:
        while self.mail:
            self.deliver(0)

    def deliver(self, index: int, *, again: bool = False) -> None:
        if self.mail:
            message = self.mail[index % len(self.mail)]
            self.state = fold(self.state, message, next(self.versions))
            if not again:
                self.mail.remove(message)

    def wipe(self) -> None:
        """The bus loses all messages, with every report; objects are listed and published again."""
        self.state = Projection()
        self.mail = [testing.changed(copy.deepcopy(body)) for body in self.objects.values()]
        self.deliver_all()

    def reconcile(self) -> None:
        planned = plan(self.state, CACHE_KEY, self.now, options=JobOptions("i"))
        for report in planned.reports:
            self.publish(report)
        for action in planned.actions:
            match action:
                case ApplyObject():
                    self.apply(action)
                case DeleteObject():
                    if (
                        action.key in self.objects
                        and self.objects[action.key]["metadata"]["uid"] == action.uid
                    ):
                        self.remove(action.key)

    def publish(self, report: Report) -> None:
        message = report.message("cacher")
        self.state = fold(self.state, message)
        self.reports["cacher"] = message

    def write_status(self) -> None:
        """What the statuswriter does with the last report."""
        if "cacher" not in self.reports:
            return
        report = self.reports["cacher"]
        cache = copy.deepcopy(self.objects[CACHE_KEY])
        conditions = [
            testing.status_condition(c.type, c.status == "True", c.reason, c.message)
            for c in report.conditions
        ]
        status = {**report.fields, "conditions": conditions}
        if cache.get("status") != status:
            self.put({**cache, "status": status})

    def apply(self, action: ApplyObject) -> None:
        existing = self.objects.get(action.key)
        body = (
            copy.deepcopy(action.body) if existing is None else self.merged(existing, action.body)
        )
        if existing is not None and body == existing:
            return
        if existing is None and action.key.kind == JOB.kind:
            assert not self.filled, "downloaded again after success"
            body["status"] = {}
        if existing is None and action.key.kind == CLAIM.kind:
            body["status"] = {"phase": "Pending"}
        self.state = fold(self.state, changed_from_response(self.put(body)))

    @staticmethod
    def merged(existing: Body, desired: Body) -> Body:
        metadata = {
            **existing["metadata"],
            "annotations": desired["metadata"].get("annotations", {}),
        }
        return {**existing, "metadata": metadata, "spec": existing["spec"]}

    def cluster_step(self) -> None:
        """Volumes are bound, Jobs run to their end, one at a time."""
        for key, body in list(self.objects.items()):
            if key.kind == CLAIM.kind and body["status"]["phase"] == "Pending":
                self.put({**body, "status": {"phase": "Bound"}})
            elif key.kind == JOB.kind and not body["status"]:
                self.run(key, body)

    def run(self, key: Key, job: Body) -> None:
        exit_code = self.outcomes.pop(0) if self.outcomes else 0
        download = key.name.endswith("-download")
        self.downloads += download
        self.filled = self.filled or (download and exit_code == 0)
        text = '{"message": "m", "bytes": 10, "revision": "r"}'
        owners = {
            "ownerReferences": [{"kind": JOB.kind, "name": key.name, "uid": job["metadata"]["uid"]}]
        }
        pod = testing.obj(POD.kind, f"{key.name}-{next(self.versions)}", uid="")
        state = {
            "name": CONTAINER,
            "state": {"terminated": {"exitCode": exit_code, "message": text}},
        }
        pod["metadata"] |= owners
        ending = {
            "type": "Failed" if exit_code else "Complete",
            "status": "True",
            "lastTransitionTime": timestamp(self.now),
        }
        self.put({**job, "status": {"conditions": [ending]}})
        self.put(
            {
                **pod,
                "status": {
                    "phase": "Failed" if exit_code else "Succeeded",
                    "containerStatuses": [state],
                },
            }
        )

    def edit(self) -> None:
        """A user requests a retry: the inputs of attempts change."""
        cache = copy.deepcopy(self.objects[CACHE_KEY])
        self.put(
            {
                **cache,
                "metadata": {
                    **cache["metadata"],
                    "annotations": {labels.ANNOTATION_RETRY: str(next(self.versions))},
                },
            }
        )

    def settle(self) -> None:
        """Continue until nothing changes."""
        quiet = 0
        for _ in range(200):
            before = self.objects
            self.objects = dict(before)
            if quiet == 4:
                return
            self.cluster_step()
            self.write_status()
            self.deliver_all()
            self.reconcile()
            self.now += datetime.timedelta(seconds=300)
            quiet = quiet + 1 if self.objects == before and not self.mail else 0


STEPS = st.one_of(
    st.tuples(st.just("deliver"), st.integers(0, 9)),
    st.tuples(st.just("again"), st.integers(0, 9)),
    st.tuples(
        st.sampled_from(["reconcile", "cluster", "status", "wipe", "edit", "wait"]), st.just(0)
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(EXIT_CODES), max_size=8),
    steps=st.lists(STEPS, max_size=60),
    sized=st.booleans(),
)
def test_a_cache_ends_up_available_and_is_never_downloaded_again(
    outcomes: list[int], steps: list[tuple[str, int]], *, sized: bool
) -> None:
    world = Simulation(outcomes, sized=sized)
    for step, index in steps:
        match step:
            case "deliver" | "again":
                world.deliver(index, again=step == "again")
            case "reconcile":
                world.reconcile()
            case "cluster":
                world.cluster_step()
            case "status":
                world.write_status()
            case "wipe":
                world.wipe()
            case "edit":
                world.edit()
            case _:
                world.now += datetime.timedelta(seconds=45)
    world.settle()
    filled = next(
        c for c in world.objects[CACHE_KEY]["status"]["conditions"] if c["type"] == "Filled"
    )
    assert (filled["status"], filled["reason"]) == ("True", "Warm")
    assert [key for key in world.objects if key.kind == JOB.kind] == []


def test_a_claim_deleted_by_hand_is_refilled() -> None:
    world = Simulation([], sized=True)
    world.settle()
    before = world.downloads
    world.filled = False
    world.remove(Key(CLAIM.kind, NAMESPACE, "c-cache"))
    world.settle()
    assert world.downloads == before + 1


@pytest.mark.parametrize("failures", [1, 5, 7], ids=lambda n: f"{n}-failures")
def test_every_try_is_counted_once(failures: int) -> None:
    world = Simulation([20] * failures, sized=True)
    world.settle()
    assert world.downloads == failures + 1


@settings(max_examples=200, deadline=None)
@given(
    status=st.fixed_dictionaries(
        {},
        optional={
            "conditions": st.sampled_from(
                [None, [], [{}], [{"type": "Filled"}], [{"type": "Failed", "status": "True"}]]
            ),
            "containerStatuses": st.sampled_from(
                [None, [], [{}], [{"name": "downloader", "state": {"terminated": {}}}]]
            ),
            "phase": st.sampled_from([None, "", "Bound", "Pending"]),
            "attempts": st.just(0),
        },
    ),
    kinds=st.sets(
        st.sampled_from(
            [
                ("PersistentVolumeClaim", "c-cache"),
                ("Job", "c-download"),
                ("Job", "c-size"),
                ("Pod", "p"),
            ]
        )
    ),
    spec=st.sampled_from(
        [{"sourceUri": "hf://a/b"}, {"sourceUri": "s3://a/b", "size": 5, "env": []}]
    ),
)
def test_malformed_objects_raise_nothing(
    status: dict[str, Any], kinds: set[tuple[str, str]], spec: dict[str, Any]
) -> None:
    owner = {"Pod": (JOB.kind, "c-download")}
    parts = [
        testing.obj(kind, name, owner=owner.get(kind, (CACHE.kind, "c")), status=status)
        for kind, name in kinds
    ]
    template = testing.cr("AIMServiceTemplate", "t", {"model": "m"}, status=status)
    state = testing.projection(testing.cr(CACHE.kind, "c", spec, status=status), template, *parts)
    for key in (CACHE_KEY, Key("AIMServiceTemplate", NAMESPACE, "t")):
        assert plan(state, key, NOW, options=JobOptions("i")) is not None
