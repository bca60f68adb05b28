"""What `plan -f` would create and change."""

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimcontroller.action import ApplyObject
from aimcontroller.component import Component
from aimcontroller.plan import EMPTY_PLAN, actions
from aimcontroller.projection import Projection, fold
from aimcontroller.testing import NOW, cr, obj, projection, storage_class
from aimctl.analysis.preview import BadManifest, Preview, diff, manifests, preview
from aimctl.component_registry import PLANNERS, planner
from aimschema.messages import KindSynced
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG_MAP,
    GATEWAY,
    JOB,
    SERVICE,
    TEMPLATE,
    WATCHED,
    Key,
)

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
SERVICES = [planner(name) for name in PLANNERS]
SPEC = {"sourceUri": "s3://b/o/m", "size": "10Gi"}
Body = dict[str, Any]


def plan(state: Projection, *desired: Body) -> Preview:
    return preview(state, desired, SERVICES, NOW)


def printed(planned: Preview) -> list[str]:
    return [
        f"{change.who} {change.verb} {change.key.kind} {change.key.name}"
        for change in planned.changes
    ]


PUBLIC = obj(GATEWAY.kind, "aim-gateway", namespace="aim-system", spec={"listeners": []})
QUICKSTARTED = Key(SERVICE.kind, "quickstart", "minilm")


def test_the_quickstart_goes_as_far_as_the_image_has_to_answer() -> None:
    desired, others = manifests([QUICKSTART], None)
    planned = plan(projection(PUBLIC), *desired)
    assert printed(planned) == [
        "you create AIMNamespaceConfig default",
        "you create AIMClusterModel all-minilm-l6-v2",
        "you create AIMServiceTemplate minilm-latency",
        "you create AIMService minilm",
        "discovery create ConfigMap minilm-latency-discovery",
        "discovery create Job discover-minilm-latency-3c86df75",
        "router create HTTPRoute minilm",
    ]
    assert "Pending (TemplateNotReady)" in dict(planned.outlook)[QUICKSTARTED]
    assert [key.kind for key in others] == ["Namespace", "Secret"]
    assert {change.key.kind for change in planned.changes} >= {CONFIG_MAP.kind, JOB.kind}


def test_a_gateway_in_cluster_or_manifests_is_not_missing(
    tmp_path: Path,
) -> None:
    (tmp_path / "gateway.yaml").write_text(
        yaml.safe_dump({name: PUBLIC[name] for name in ("apiVersion", "kind", "metadata", "spec")})
    )
    alone, _ = manifests([QUICKSTART], None)
    together, _ = manifests([QUICKSTART, tmp_path], None)
    assert (
        "Gateway aim-system/aim-gateway does not exist"
        in dict(plan(Projection(), *alone).outlook)[QUICKSTARTED]
    )
    brought = plan(Projection(), *together)
    assert "you create Gateway aim-gateway" in printed(brought)
    assert "TemplateNotReady" in dict(brought.outlook)[QUICKSTARTED]
    assert "you create Gateway aim-gateway" not in printed(plan(projection(PUBLIC), *together))


def wants(body: Body) -> Component:
    """A service that wants this object for every cache."""
    return Component(
        "test",
        (CACHE,),
        (CACHE,),
        lambda _, key: [key],
        lambda state, key, _: actions(ApplyObject(body)) if state.get(key) else EMPTY_PLAN,
    )


def test_what_is_planned_comes_after_every_list_that_is_known() -> None:
    listed = [
        KindSynced(kind=resource.kind, resource_version="1000000", objects=0)
        for resource in WATCHED
    ]
    desired, _ = manifests([QUICKSTART], None)
    state = projection(PUBLIC)
    assert printed(plan(reduce(fold, listed, state), *desired)) == printed(plan(state, *desired))


@pytest.mark.parametrize(
    ("existing", "count"),
    [
        pytest.param(
            obj(CLAIM.kind, "o", spec={"a": 2}, owner=(CACHE.kind, "weights")), 1, id="ours"
        ),
        pytest.param(
            obj(CLAIM.kind, "o", spec={"a": 2}, owner=(CACHE.kind, "another")),
            0,
            id="of-another-owner",
        ),
        pytest.param(
            obj(JOB.kind, "o", spec={"a": 2}, owner=(CACHE.kind, "weights")), 0, id="made-once"
        ),
    ],
)
def test_foreign_objects_are_not_overwritten(existing: Body, count: int) -> None:
    body = obj(existing["kind"], "o", spec={"a": 1}, owner=(CACHE.kind, "weights"))
    planned = preview(projection(existing), [cr(CACHE.kind, "weights", SPEC)], [wants(body)], NOW)
    assert [change.key.name for change in planned.changes] == ["weights", "o"][: 1 + count]


def written(name: str, spec: Body) -> Body:
    return {
        "apiVersion": "aim.silogen.ai/v1alpha1",
        "kind": CACHE.kind,
        "metadata": {"name": name, "namespace": "team"},
        "spec": spec,
    }


def test_a_cache_gets_its_claim_and_waits_for_its_volume() -> None:
    planned = plan(projection(storage_class()), written("weights", SPEC))
    assert printed(planned) == [
        "you create ModelCache weights",
        "cacher create PersistentVolumeClaim weights-cache",
    ]
    assert planned.outlook[0][1].startswith("Pending (WaitingForPVC)")


def bounded(quota: str) -> Body:
    return cr("AIMNamespaceConfig", "default", {"caching": {"quota": quota}})


def test_a_quota_with_room_changes_nothing_of_a_plan() -> None:
    state = projection(storage_class(), bounded("10Gi"))
    assert printed(plan(state, written("weights", SPEC))) == [
        "you create ModelCache weights",
        "cacher create PersistentVolumeClaim weights-cache",
    ]


def test_a_quota_without_room_is_part_of_the_outlook() -> None:
    planned = plan(projection(storage_class(), bounded("5Gi")), written("weights", SPEC))
    assert printed(planned) == ["you create ModelCache weights"]
    assert planned.outlook[0][1].startswith("Pending (QuotaExceeded)")


def test_an_unchanged_manifest_changes_nothing() -> None:
    state = projection(cr(CACHE.kind, "weights", SPEC), storage_class())
    assert plan(state, written("weights", SPEC)).changes == ()


def test_a_change_is_shown_as_a_diff_of_what_changes() -> None:
    state = projection(cr(CACHE.kind, "weights", SPEC), storage_class())
    change, *_ = plan(state, written("weights", {**SPEC, "size": "20Gi"})).changes
    assert [line for line in diff(change) if line[0] in "+-"] == ["-  size: 10Gi", "+  size: 20Gi"]


def test_a_field_that_the_manifest_leaves_out_goes() -> None:
    state = projection(cr(CACHE.kind, "weights", SPEC), storage_class())
    change, *_ = plan(state, written("weights", {"sourceUri": SPEC["sourceUri"]})).changes
    assert [line for line in diff(change) if line[0] in "+-"] == ["-  size: 10Gi"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [", "expected", id="no-yaml"),
        pytest.param("a: 1", "without kind or metadata.name", id="no-object"),
        pytest.param(
            yaml.safe_dump({**written("c", SPEC), "kind": "AIMThing"}),
            "has no kind AIMThing",
            id="unknown-kind",
        ),
        pytest.param(
            yaml.safe_dump(written("c", {})),
            "ModelCache c: spec.sourceUri: Field required",
            id="field-missing",
        ),
    ],
)
def test_an_invalid_manifest_is_rejected_with_a_message(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(BadManifest, match=message):
        manifests([tmp_path / "m.yaml"], None)


def test_a_manifest_without_namespace_gets_the_given_one(tmp_path: Path) -> None:
    body = written("c", SPEC)
    del body["metadata"]["namespace"]
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(body))
    assert [
        manifests([tmp_path], namespace)[0][0]["metadata"]["namespace"]
        for namespace in ("team", None)
    ] == ["team", "default"]
    assert TEMPLATE.namespaced


def test_a_manifest_gets_the_defaults_of_the_api_server_alone(tmp_path: Path) -> None:
    """Its schema has defaults for scalars, and none for lists and maps."""
    spec = {
        "model": "m",
        "templateRef": "t",
        "tolerations": [],
        "env": [{"name": "A", "value": "1"}],
    }
    body = {
        "apiVersion": "aim.silogen.ai/v1alpha1",
        "kind": "AIMService",
        "metadata": {"name": "s"},
        "spec": spec,
    }
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(body))
    ((found,), _) = manifests([tmp_path / "service.yaml"], None)
    defaults = {"configRef": "default", "replicas": 1, "cacheModel": True}
    assert found["spec"] == spec | defaults
