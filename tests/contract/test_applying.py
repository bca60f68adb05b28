"""Every object the services render, applied by the real Applier on the API server double: nothing
twice, nothing of others, nothing for ever.

Kinds of KServe and the Gateway API are the real ones where AIM_REAL_CRDS or `shared/crds` has them,
else the lab's; those have no defaults.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
import yaml

from aim_watcher.prune import prune
from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.applier import CREATE_ONLY_KINDS, Applier, NameConflict
from aimcontroller.projection import Projection, changed_from_response, fold
from aimctl.manifests import documents
from aimkube import Body, Cluster, NotFound
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.crds import bundled_crds
from aimlab.testing import eventually
from aimschema.labels import MANAGED_BY
from aimschema.resources import CONFIG, POD, RESOURCES

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("AIM_REAL_CRDS") or ROOT.parent / "shared" / "crds")
GOLDEN = {
    file.stem: file
    for file in ROOT.glob("services/*/tests/golden/*.yaml")
    if file.parts[-4] != "statuswriter"
}
REPAIRED = sorted(
    name
    for name, file in GOLDEN.items()
    if documents(file.read_text())[0]["kind"] not in CREATE_ONLY_KINDS
)
MANAGER = "aim-test"
NUMBERS = count(1)
every_object = pytest.mark.parametrize("name", sorted(GOLDEN))
every_repaired_object = pytest.mark.parametrize("name", REPAIRED)


@dataclass
class Counting:
    """A cluster that counts what is asked of it, and asks something else where that is wanted."""

    cluster: Cluster
    requests: Counter[str] = field(default_factory=Counter)
    overrides: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, verb: str) -> Any:
        self.requests[verb] += 1
        return self.overrides.get(verb) or getattr(self.cluster, verb)

    async def apply(self, body: Body, *, manager: str, dry_run: bool = False) -> Body:
        """A dry run writes nothing, and is neither counted nor overridden."""
        if dry_run:
            return await self.cluster.apply(body, manager=manager, dry_run=True)
        self.requests["apply"] += 1
        answer: Body = await (self.overrides.get("apply") or self.cluster.apply)(
            body, manager=manager
        )
        return answer


@dataclass
class Bench:
    """`owner` represents the AIM object that owns the objects: the garbage collector removes
    objects without owner."""

    cluster: Cluster
    counting: Counting
    applier: Applier
    owner: Body

    @property
    def namespace(self) -> str:
        return str(self.owner["metadata"]["namespace"])

    def desired(self, name: str) -> ApplyObject:
        body = yaml.safe_load(GOLDEN[name].read_text())
        body["metadata"]["namespace"] = self.namespace
        if "ownerReferences" in body["metadata"]:
            body["metadata"]["ownerReferences"] = [reference_to(self.owner)]
        return ApplyObject(body)

    async def apply(self, desired: ApplyObject, *, blind: bool = False) -> Body | None:
        """Applies like a service whose state has the object as the watcher published it; `blind`:
        whose state does not have it."""
        if blind:
            return await self.applier.apply(Projection(), desired)
        existing = await self.existing(desired)
        return await self.applier.apply(
            Projection()
            if existing is None
            else fold(Projection(), changed_from_response(prune(existing))),
            desired,
        )

    async def existing(self, desired: ApplyObject) -> Body | None:
        try:
            return await self.cluster.get(
                RESOURCES[desired.key.kind], desired.key.namespace, desired.key.name
            )
        except NotFound:
            return None

    async def edit(self, desired: ApplyObject, patch: Body, subresource: str | None = None) -> None:
        key = desired.key
        await self.cluster.merge_patch(
            RESOURCES[key.kind], key.namespace, key.name, patch, subresource=subresource
        )


def reference_to(owner: Body) -> Body:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def definitions() -> list[Body]:
    """The real kinds before the lab's: the first of a name counts."""
    folders = (REAL, ROOT / "deploy" / "crds")
    found = [
        crd
        for folder in folders
        for file in sorted(folder.glob("*.yaml"))
        for crd in documents(file.read_text())
        if crd
    ]
    by_name: dict[str, Body] = {}
    for crd in [*found, *bundled_crds()]:
        by_name.setdefault(crd["metadata"]["name"], crd)
    used = {f"{resource.plural}.{resource.group}" for resource in RESOURCES.values()}
    return [crd for name, crd in by_name.items() if name in used]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connected(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One API server with the kinds; each test has its own namespace."""
    kubeconfig = tmp_path_factory.mktemp("applying") / "kubeconfig"
    async with ApiServer() as server:
        write_kubeconfig(kubeconfig, server.url)
        cluster = await Cluster.connect(str(kubeconfig))
        for crd in definitions():
            await cluster.create(crd)
        yield cluster
        await cluster.close()


@pytest_asyncio.fixture(loop_scope="module")
async def bench(connected: Cluster) -> Bench:
    namespace = f"team-{next(NUMBERS)}"
    await connected.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    owner = await connected.create(
        {
            "apiVersion": CONFIG.api_version,
            "kind": CONFIG.kind,
            "metadata": {"name": "owner", "namespace": namespace},
        }
    )
    counting = Counting(connected)
    return Bench(connected, counting, Applier(cast(Cluster, counting), MANAGER), owner)


@every_object
async def test_it_is_made_once_and_belongs_to_its_manager_and_owner(
    bench: Bench, name: str
) -> None:
    desired = bench.desired(name)
    made = await bench.apply(desired)
    assert made is not None
    assert await bench.apply(desired) is None
    assert bench.counting.requests["apply"] == 1
    existing = await bench.existing(desired)
    assert existing is not None
    assert [
        (entry["manager"], entry["operation"]) for entry in existing["metadata"]["managedFields"]
    ] == [(MANAGER, "Apply")]
    assert existing["metadata"].get("ownerReferences") == desired.body["metadata"].get(
        "ownerReferences"
    )


@pytest.mark.parametrize("blind", [False, True], ids=["in-the-state", "unknown"])
@every_object
async def test_an_object_of_another_owner_is_not_overwritten(
    bench: Bench, name: str, *, blind: bool
) -> None:
    desired = bench.desired(name)
    theirs = {
        **desired.body,
        "metadata": {
            "name": desired.key.name,
            "namespace": bench.namespace,
            "labels": {"theirs": "yes"},
        },
    }
    before = await bench.cluster.create(theirs)
    with pytest.raises(NameConflict, match=f"{desired.key} exists"):
        await bench.apply(desired, blind=blind)
    assert await bench.existing(desired) == before


@every_object
async def test_what_is_being_deleted_is_left_alone(bench: Bench, name: str) -> None:
    desired = bench.desired(name)
    await bench.apply(desired)
    await bench.edit(desired, {"metadata": {"finalizers": ["example.org/held"]}})
    await bench.cluster.delete(RESOURCES[desired.key.kind], bench.namespace, desired.key.name)
    other = ApplyObject(
        {
            **desired.body,
            "metadata": {**desired.body["metadata"], "labels": {MANAGED_BY: "aim", "new": "label"}},
        }
    )
    assert await bench.apply(other) is None
    assert await bench.apply(other, blind=True) is None
    assert bench.counting.requests["apply"] == 1
    await bench.edit(desired, {"metadata": {"finalizers": None}})


@every_object
async def test_an_object_deleted_by_hand_is_recreated(bench: Bench, name: str) -> None:
    desired = bench.desired(name)
    first = await bench.apply(desired)
    await bench.edit(desired, {"metadata": {"finalizers": None}})
    await bench.cluster.delete(RESOURCES[desired.key.kind], bench.namespace, desired.key.name)
    bench.applier.forget(desired.key)
    again = await bench.apply(desired)
    assert first is not None
    assert again is not None
    assert again["metadata"]["uid"] != first["metadata"]["uid"]


@every_repaired_object
async def test_edits_are_undone_and_what_others_add_stays(bench: Bench, name: str) -> None:
    desired = bench.desired(name)
    made = await bench.apply(desired)
    assert made is not None
    ours = next(iter(made["metadata"]["labels"]))
    await bench.edit(
        desired, {"metadata": {"labels": {ours: "me"}, "annotations": {"theirs": "stays"}}}
    )
    mended = await bench.apply(desired)
    assert mended is not None
    assert mended["metadata"]["labels"] == made["metadata"]["labels"]
    assert mended["metadata"]["annotations"]["theirs"] == "stays"
    assert await bench.apply(desired) is None


@every_repaired_object
async def test_a_restarted_process_with_marks_writes_nothing(bench: Bench, name: str) -> None:
    desired = bench.desired(name)
    await bench.apply(desired)
    mark = bench.applier.mark(desired.key)
    for recalled, writes in ((mark, 0), (None, 1)):
        bench.applier = Applier(cast(Cluster, bench.counting), MANAGER)
        bench.applier.restore_mark(desired.key, recalled)
        bench.counting.requests.clear()
        await bench.apply(desired)
        assert bench.counting.requests["apply"] == writes


@pytest.mark.parametrize("name", [name for name in REPAIRED if name.startswith("route")])
async def test_the_status_by_a_gateway_is_no_drift(bench: Bench, name: str) -> None:
    desired = bench.desired(name)
    await bench.apply(desired)
    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "",
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }
    parent = {
        "parentRef": {"name": "gw"},
        "controllerName": "example.org/gateway",
        "conditions": [condition],
    }
    await bench.edit(desired, {"status": {"parents": [parent]}}, "status")
    assert await bench.apply(desired) is None


@pytest.mark.parametrize(
    "name", [name for name in REPAIRED if name.startswith("inference-service")]
)
async def test_what_a_webhook_of_kserve_makes_of_it_is_no_drift(bench: Bench, name: str) -> None:
    """Its defaulting rewrites and adds fields within the apply; its controller adds a finalizer and
    a status."""
    desired = bench.desired(name)

    async def defaulting(body: Body, *, manager: str) -> Body:
        await bench.cluster.apply(body, manager=manager)
        await bench.edit(
            desired,
            {
                "spec": {"predictor": {"maxReplicas": 7, "timeout": 60}},
                "metadata": {"annotations": {"kserve": "was here"}},
            },
        )
        existing = await bench.existing(desired)
        assert existing is not None
        return existing

    bench.counting.overrides["apply"] = defaulting
    await bench.apply(desired)
    await bench.edit(desired, {"metadata": {"finalizers": ["inferenceservice.finalizers"]}})
    await bench.edit(desired, {"status": {"observedGeneration": 1}}, "status")
    assert await bench.apply(desired) is None
    await bench.edit(desired, {"spec": {"predictor": {"maxReplicas": 9}}})
    assert await bench.apply(desired) is not None


async def test_only_the_intended_job_is_deleted_with_its_pods(bench: Bench) -> None:
    desired = bench.desired("download-job")
    job = await bench.apply(desired)
    assert job is not None
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    metadata = {"name": "p", "namespace": bench.namespace, "ownerReferences": [reference_to(job)]}
    await bench.cluster.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
    )
    assert not await bench.applier.delete(DeleteObject(desired.key, "of-another"))
    assert await bench.existing(desired) is not None
    assert await bench.applier.delete(DeleteObject(desired.key, job["metadata"]["uid"]))

    async def is_deleted() -> bool:
        """A deletion timestamp is enough: without a kubelet the pod does not end."""
        pods = (await bench.cluster.list(POD, bench.namespace)).items
        return all("deletionTimestamp" in pod["metadata"] for pod in pods)

    await eventually(is_deleted, "the pod of the Job")
    assert await bench.existing(desired) is None
