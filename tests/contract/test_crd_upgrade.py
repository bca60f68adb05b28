"""The CRDs of today, put over those of every released version: objects stay valid, by the rules
and on an API server."""

from pathlib import Path
from typing import Any

import pytest

from aimctl.manifests import documents
from aimkube import Cluster
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimschema.crd_changes import compare
from aimschema.resources import AIM_KINDS, CRD, NAMESPACE, RESOURCES

ROOT = Path(__file__).parents[2]
TODAY = ROOT / "deploy" / "crds"
VERSIONS = sorted(path for path in (ROOT / "contracts" / "released").iterdir() if path.is_dir())
OURS = {resource.kind for resource in AIM_KINDS}
Body = dict[str, Any]


def bodies(*files: Path) -> list[Body]:
    return [body for file in files for body in documents(file.read_text()) if body]


def crds(folder: Path) -> dict[str, Body]:
    return {body["metadata"]["name"]: body for body in bodies(*sorted(folder.glob("*.yaml")))}


def objects() -> list[Body]:
    """Everything of our kinds in the examples."""
    every = [
        body
        for body in bodies(*sorted((ROOT / "examples").rglob("*.yaml")))
        if body["kind"] in OURS
    ]
    assert {body["kind"] for body in every} == OURS
    return list(
        {
            (body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"]): body
            for body in every
        }.values()
    )


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_the_crds_admit_what_those_of_a_release_did(version: Path) -> None:
    then, now = crds(version / "crds"), crds(TODAY)
    assert then
    assert then.keys() <= now.keys()
    assert [str(breach) for name, body in then.items() for breach in compare(body, now[name])] == []


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
async def test_objects_of_a_release_can_be_written_after_the_upgrade(
    version: Path, tmp_path: Path
) -> None:
    async with ApiServer() as api:
        write_kubeconfig(tmp_path / "kubeconfig", api.url)
        cluster = await Cluster.connect(str(tmp_path / "kubeconfig"), user_agent="test")
        try:
            for body in crds(version / "crds").values():
                await cluster.create(body, resource=CRD)
            old = objects()
            for namespace in {body["metadata"].get("namespace") for body in old} - {None}:
                await cluster.create(
                    {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": namespace}}
                )
            stored = [await cluster.create(body) for body in old]
            for body in crds(TODAY).values():
                await cluster.apply(body, manager="kubectl", resource=CRD)
            for body in stored:
                metadata = body["metadata"]
                touched = {"metadata": {"annotations": {"touched": "yes"}}}
                written = await cluster.merge_patch(
                    RESOURCES[body["kind"]], metadata.get("namespace"), metadata["name"], touched
                )
                assert written["spec"] == body["spec"]
        finally:
            await cluster.close()
