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
from aimlab.crds import bundled
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
KEPT = sorted(
    name
    for name, file in GOLDEN.items()
    if documents(file.read_text())[0]["kind"] not in CREATE_ONLY_KINDS
)
MANAGER = "aim-test"
NUMBERS = count(1)
every_object = pytest.mark.parametrize("name", sorted(GOLDEN))
every_kept_object = pytest.mark.parametrize("name", KEPT)


@dataclass
class Counting:
    """A cluster that counts what is asked of it, and asks something else where that is wanted."""

    cluster: Cluster
    asked: Counter[str] = field(default_factory=Counter)
    overrides: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, verb: str) -> Any:
        self.asked[verb] += 1
        return self.overrides.get(verb) or getattr(self.cluster, verb)


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

    def wanted(self, name: str) -> ApplyObject:
        body = yaml.safe_load(GOLDEN[name].read_text())
        body["metadata"]["namespace"] = self.namespace
        if "ownerReferences" in body["metadata"]:
            body["metadata"]["ownerReferences"] = [reference_to(self.owner)]
        return ApplyObject(body)

    async def apply(self, wanted: ApplyObject, *, blind: bool = False) -> Body | None:
        """Applies like a service whose state has the object as the watcher published it; `blind`:
        whose state does not have it."""
        if blind:
            return await self.applier.apply(Projection(), wanted)
        there = await self.there(wanted)
        return await self.applier.apply(
            Projection()
            if there is None
            else fold(Projection(), changed_from_response(prune(there))),
            wanted,
        )

    async def there(self, wanted: ApplyObject) -> Body | None:
        try:
            return await self.cluster.get(
                RESOURCES[wanted.key.kind], wanted.key.namespace, wanted.key.name
            )
        except NotFound:
            return None

    async def edit(self, wanted: ApplyObject, patch: Body, subresource: str | None = None) -> None:
        key = wanted.key
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
    for crd in [*found, *bundled()]:
        by_name.setdefault(crd["metadata"]["name"], crd)
    used = {f"{resource.plural}.{resource.group}" for resource in RESOURCES.values()}
    return [crd for name, crd in by_name.items() if name in used]


CRDS = definitions()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connected(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One API server with the kinds; each test has its own namespace."""
    kubeconfig = tmp_path_factory.mktemp("applying") / "kubeconfig"
    async with ApiServer() as server:
        write_kubeconfig(kubeconfig, server.url)
        cluster = await Cluster.connect(str(kubeconfig))
        for crd in CRDS:
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
    wanted = bench.wanted(name)
    made = await bench.apply(wanted)
    assert made is not None
    assert await bench.apply(wanted) is None
    assert bench.counting.asked["apply"] == 1
    there = await bench.there(wanted)
    assert there is not None
    assert [
        (entry["manager"], entry["operation"]) for entry in there["metadata"]["managedFields"]
    ] == [(MANAGER, "Apply")]
    assert there["metadata"].get("ownerReferences") == wanted.body["metadata"].get(
        "ownerReferences"
    )


@pytest.mark.parametrize("blind", [False, True], ids=["seen", "not-seen"])
@every_object
async def test_what_is_somebody_elses_is_not_overwritten(
    bench: Bench, name: str, *, blind: bool
) -> None:
    wanted = bench.wanted(name)
    theirs = {
        **wanted.body,
        "metadata": {
            "name": wanted.key.name,
            "namespace": bench.namespace,
            "labels": {"theirs": "yes"},
        },
    }
    before = await bench.cluster.create(theirs)
    with pytest.raises(NameConflict, match=f"{wanted.key} exists"):
        await bench.apply(wanted, blind=blind)
    assert await bench.there(wanted) == before


@every_object
async def test_what_is_being_deleted_is_left_alone(bench: Bench, name: str) -> None:
    wanted = bench.wanted(name)
    await bench.apply(wanted)
    await bench.edit(wanted, {"metadata": {"finalizers": ["example.org/held"]}})
    await bench.cluster.delete(RESOURCES[wanted.key.kind], bench.namespace, wanted.key.name)
    other = ApplyObject(
        {
            **wanted.body,
            "metadata": {**wanted.body["metadata"], "labels": {MANAGED_BY: "aim", "new": "label"}},
        }
    )
    assert await bench.apply(other) is None
    assert await bench.apply(other, blind=True) is None
    assert bench.counting.asked["apply"] == 1
    await bench.edit(wanted, {"metadata": {"finalizers": None}})


@every_object
async def test_what_was_deleted_by_hand_is_made_anew(bench: Bench, name: str) -> None:
    wanted = bench.wanted(name)
    first = await bench.apply(wanted)
    await bench.edit(wanted, {"metadata": {"finalizers": None}})
    await bench.cluster.delete(RESOURCES[wanted.key.kind], bench.namespace, wanted.key.name)
    bench.applier.forget(wanted.key)
    again = await bench.apply(wanted)
    assert first is not None
    assert again is not None
    assert again["metadata"]["uid"] != first["metadata"]["uid"]


@every_kept_object
async def test_edits_are_undone_and_what_others_add_stays(bench: Bench, name: str) -> None:
    wanted = bench.wanted(name)
    made = await bench.apply(wanted)
    assert made is not None
    ours = next(iter(made["metadata"]["labels"]))
    await bench.edit(
        wanted, {"metadata": {"labels": {ours: "me"}, "annotations": {"theirs": "stays"}}}
    )
    mended = await bench.apply(wanted)
    assert mended is not None
    assert mended["metadata"]["labels"] == made["metadata"]["labels"]
    assert mended["metadata"]["annotations"]["theirs"] == "stays"
    assert await bench.apply(wanted) is None


@every_kept_object
async def test_a_process_that_starts_writes_nothing_if_it_was_told(bench: Bench, name: str) -> None:
    wanted = bench.wanted(name)
    await bench.apply(wanted)
    mark = bench.applier.mark(wanted.key)
    for told, writes in ((mark, 0), (None, 1)):
        bench.applier = Applier(cast(Cluster, bench.counting), MANAGER)
        bench.applier.recall(wanted.key, told)
        bench.counting.asked.clear()
        await bench.apply(wanted)
        assert bench.counting.asked["apply"] == writes


@pytest.mark.parametrize("name", [name for name in KEPT if name.startswith("route")])
async def test_what_a_gateway_says_of_a_route_is_no_drift(bench: Bench, name: str) -> None:
    wanted = bench.wanted(name)
    await bench.apply(wanted)
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
    await bench.edit(wanted, {"status": {"parents": [parent]}}, "status")
    assert await bench.apply(wanted) is None


@pytest.mark.parametrize("name", [name for name in KEPT if name.startswith("inference-service")])
async def test_what_a_webhook_of_kserve_makes_of_it_is_no_drift(bench: Bench, name: str) -> None:
    """Its defaulting rewrites and adds fields within the apply; its controller adds a finalizer and
    a status."""
    wanted = bench.wanted(name)

    async def defaulting(body: Body, *, manager: str) -> Body:
        await bench.cluster.apply(body, manager=manager)
        await bench.edit(
            wanted,
            {
                "spec": {"predictor": {"maxReplicas": 7, "timeout": 60}},
                "metadata": {"annotations": {"kserve": "was here"}},
            },
        )
        there = await bench.there(wanted)
        assert there is not None
        return there

    bench.counting.overrides["apply"] = defaulting
    await bench.apply(wanted)
    await bench.edit(wanted, {"metadata": {"finalizers": ["inferenceservice.finalizers"]}})
    await bench.edit(wanted, {"status": {"observedGeneration": 1}}, "status")
    assert await bench.apply(wanted) is None
    await bench.edit(wanted, {"spec": {"predictor": {"maxReplicas": 9}}})
    assert await bench.apply(wanted) is not None


async def test_only_the_intended_job_is_deleted_with_its_pods(bench: Bench) -> None:
    wanted = bench.wanted("download-job")
    job = await bench.apply(wanted)
    assert job is not None
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    metadata = {"name": "p", "namespace": bench.namespace, "ownerReferences": [reference_to(job)]}
    await bench.cluster.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
    )
    assert not await bench.applier.delete(DeleteObject(wanted.key, "of-another"))
    assert await bench.there(wanted) is not None
    assert await bench.applier.delete(DeleteObject(wanted.key, job["metadata"]["uid"]))

    async def gone() -> bool:
        """A deletion timestamp is enough: without a kubelet the pod does not end."""
        pods = (await bench.cluster.list(POD, bench.namespace)).items
        return all("deletionTimestamp" in pod["metadata"] for pod in pods)

    await eventually(gone, "the pod of the Job")
    assert await bench.there(wanted) is None
