"""What `plan -f` says would be made and changed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aimctl.planners import PLANNERS, planner
from aimctl.planning import BadManifest, Preview, diff, manifests, preview
from aimschema.resources import CACHE, CONFIG_MAP, JOB, SERVICE, TEMPLATE, Key
from aimservice.projection import Projection
from aimservice.testing import NOW, cr, projection, storage_class

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
SERVICES = [planner(name) for name in PLANNERS]
SPEC = {"sourceUri": "s3://b/o/m", "size": "10Gi"}
Body = dict[str, Any]


def plan(seen: Projection, *wanted: Body) -> Preview:
    return preview(seen, wanted, SERVICES, NOW)


def told(planned: Preview) -> list[str]:
    return [f"{change.who} {change.verb} {change.key.kind} {change.key.name}" for change in planned.changes]


def test_the_quickstart_goes_as_far_as_the_image_has_to_answer() -> None:
    wanted, others = manifests([QUICKSTART], None)
    planned = plan(Projection(), *wanted)
    assert told(planned) == [
        "you create AIMNamespaceConfig default",
        "you create AIMClusterModel all-minilm-l6-v2",
        "you create AIMServiceTemplate minilm-latency",
        "you create AIMService minilm",
        "discovery create ConfigMap minilm-latency-discovery",
        "discovery create Job discover-minilm-latency-3c86df75",
        "router create HTTPRoute minilm",
    ]
    assert "Pending (TemplateNotReady)" in dict(planned.outlook)[Key(SERVICE.kind, "quickstart", "minilm")]
    assert [key.kind for key in others] == ["Namespace", "Secret"]
    assert {change.key.kind for change in planned.changes} >= {CONFIG_MAP.kind, JOB.kind}


def written(name: str, spec: Body) -> Body:
    return {"apiVersion": "aim.silogen.ai/v1alpha1", "kind": CACHE.kind, "metadata": {"name": name, "namespace": "team"}, "spec": spec}


def test_a_cache_gets_its_claim_and_waits_for_its_volume() -> None:
    planned = plan(projection(storage_class()), written("weights", SPEC))
    assert told(planned) == ["you create ModelCache weights", "cacher create PersistentVolumeClaim weights-cache"]
    assert planned.outlook[0][1].startswith("Pending (WaitingForPVC)")


def test_what_is_there_as_it_is_written_changes_nothing() -> None:
    seen = projection(cr(CACHE.kind, "weights", SPEC), storage_class())
    assert plan(seen, written("weights", SPEC)).changes == ()


def test_a_change_is_shown_as_a_diff_of_what_changes() -> None:
    seen = projection(cr(CACHE.kind, "weights", SPEC), storage_class())
    change, *_ = plan(seen, written("weights", {**SPEC, "size": "20Gi"})).changes
    assert [line for line in diff(change) if line[0] in "+-"] == ["-  size: 10Gi", "+  size: 20Gi"]


def test_a_field_that_the_manifest_leaves_out_goes() -> None:
    seen = projection(cr(CACHE.kind, "weights", SPEC), storage_class())
    change, *_ = plan(seen, written("weights", {"sourceUri": SPEC["sourceUri"]})).changes
    assert [line for line in diff(change) if line[0] in "+-"] == ["-  size: 10Gi"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("a: [", "expected", id="no-yaml"),
        pytest.param("a: 1", "without kind or metadata.name", id="no-object"),
        pytest.param(yaml.safe_dump({**written("c", SPEC), "kind": "AIMThing"}), "has no kind AIMThing", id="unknown-kind"),
        pytest.param(yaml.safe_dump(written("c", {})), "ModelCache c: spec.sourceUri: Field required", id="field-missing"),
    ],
)
def test_a_manifest_that_would_not_be_taken_is_refused_in_words(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(BadManifest, match=says):
        manifests([tmp_path / "m.yaml"], None)


def test_a_manifest_without_namespace_goes_where_it_is_told_or_to_default(tmp_path: Path) -> None:
    body = written("c", SPEC)
    del body["metadata"]["namespace"]
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(body))
    assert [manifests([tmp_path], given)[0][0]["metadata"]["namespace"] for given in ("team", None)] == ["team", "default"]
    assert TEMPLATE.namespaced
