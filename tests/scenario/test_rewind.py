"""Random edits by three managers and rewinds with `aimctl`, one of them killed. The long form is
`python -m aim_testing.rewinds`."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aim_testing.rewinds import NAMESPACE, World, run, world
from aimctl.commands.rollback import roll_back
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.put_back import Options
from aimschema.resources import CACHE, RESOURCES, Key, Resource

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("seed", [3])
async def test_a_rewind_ends_with_the_recorded_specs(tmp_path: Path, seed: int) -> None:
    outcome = await run(tmp_path, seed, edits=40, rewinds=2, kills=1)
    assert outcome.wrong == []
    assert (outcome.edits, outcome.rewinds, outcome.killed) == (40, 2, 1)


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with world(tmp_path, 1) as made:
        for name in ("AIM_NATS_URL", "KUBECONFIG"):
            monkeypatch.setenv(name, made.env[name])
        yield made


class Shown(NamedTuple):
    code: int
    text: str


async def roll_back_to(
    key: Key, to: str, *, write: bool = False, force: bool = False, form: Form = "text"
) -> Shown:
    """`aimctl rollback`, in this process."""
    file = io.StringIO()
    console = PlainConsole(file=file, width=200)
    options = Options(None, form, "", write=write, force=force)
    try:
        code = await roll_back(key, to, options, console)
    except RuntimeError as error:
        return Shown(1, f"{file.getvalue()}error: {error}")
    return Shown(code, file.getvalue())


async def apply(here: World, kind: Resource, spec: dict[str, Any], **labels: str) -> Key:
    """Apply as kubectl-edit, until it is recorded."""
    metadata = {"name": "x", "namespace": NAMESPACE, "labels": labels}
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
    await here.cluster.apply(body, manager="kubectl-edit")
    await here.note()
    return Key(kind.kind, NAMESPACE, "x")


async def spec_of(here: World, key: Key) -> Any:
    return (await here.cluster.get(RESOURCES[key.kind], key.namespace, key.name))["spec"]


async def test_a_plan_writes_nothing_and_yes_does(here: World) -> None:
    spec = {"sourceUri": "hf://a/b", "size": "1Gi"}
    key = await apply(here, CACHE, spec)
    await apply(here, CACHE, spec | {"size": "2Gi", "storageClassName": "fast"})
    plan = await roll_back_to(key, "1")
    assert plan.code == 0
    assert plan.text.splitlines() == [
        "write ModelCache/ml/x: version 1",
        "  - spec.size: 2Gi",
        "  + spec.size: 1Gi",
        "  - spec.storageClassName: fast",
        "  spec.size: kubectl-edit → aimctl-rollback",
        "  spec.storageClassName: kubectl-edit → aimctl-rollback",
        "then cacher would create PersistentVolumeClaim/ml/x-cache",
        "to write this: aimctl rollback ModelCache/x -n ml --to 1 --yes",
    ]
    assert (await spec_of(here, key))["size"] == "2Gi"
    assert (await roll_back_to(key, "1", write=True)).code == 0
    assert await spec_of(here, key) == spec
    again = await roll_back_to(key, "1", write=True)
    assert (again.code, again.text) == (0, "nothing to write\n")
    unknown = await roll_back_to(key, "7")
    assert (unknown.code, "there is no version '7'" in unknown.text) == (1, True)


async def test_a_gitops_object_is_written_only_by_force(here: World) -> None:
    spec = {"sourceUri": "hf://a/b", "size": "1Gi"}
    label = {"argocd.argoproj.io/instance": "models"}
    key = await apply(here, CACHE, spec, **label)
    await apply(here, CACHE, spec | {"size": "2Gi"}, **label)
    managed = await roll_back_to(key, "1", write=True)
    assert managed.code == 1
    assert "Argo CD manages what is to be written" in managed.text
    assert (await spec_of(here, key))["size"] == "2Gi"
    assert (await roll_back_to(key, "1", write=True, force=True)).code == 0
    assert (await spec_of(here, key))["size"] == "1Gi"


async def test_an_immutable_field_is_skipped_with_exit_code_2(here: World) -> None:
    spec = {"sourceUri": "hf://a/then", "size": "1Gi"}
    key = await apply(here, CACHE, spec)
    uid = (await here.cluster.get(CACHE, NAMESPACE, "x"))["metadata"]["uid"]
    await here.cluster.delete(CACHE, NAMESPACE, "x")
    await here.note()
    await apply(here, CACHE, {"sourceUri": "hf://a/now", "size": "2Gi"})
    past = f"1@{uid[:8]}"
    shown = await roll_back_to(key, past, write=True)
    assert shown.code == 2
    assert "not put back: ModelCache/ml/x spec.sourceUri: the field is immutable" in shown.text
    assert await spec_of(here, key) == {"sourceUri": "hf://a/now", "size": "1Gi"}


async def test_a_deleted_object_is_created_again(here: World) -> None:
    variable = {"name": "HF_TOKEN", "value": "hf_hunter2"}
    key = await apply(here, CACHE, {"sourceUri": "hf://a/b", "size": "1Gi", "env": [variable]})
    await here.cluster.delete(CACHE, NAMESPACE, "x")
    await here.note()
    shown = await roll_back_to(key, "1", write=True, form="json")
    found = json.loads(shown.text)
    assert found["writes"][0]["verb"] == "create"
    assert [each["path"] for each in found["skipped"]] == ["spec.env.HF_TOKEN"]
    assert "hunter2" not in shown.text
    assert (await spec_of(here, key))["size"] == "1Gi"
