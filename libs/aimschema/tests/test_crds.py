"""The CRDs hold every promise about the kinds."""

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from aimschema import crds
from aimschema.kinds import KINDS, SOURCE_URI_PATTERN, CacheSpec, Kind
from aimschema.resources import AIM_GROUP, AIM_KINDS, AIM_VERSION, RESOURCES

DOCUMENTS = {kind.__name__: crds.crd(kind) for kind in KINDS}
EVERY_KIND = pytest.mark.parametrize("kind", list(DOCUMENTS))

Node = dict[str, Any]


def spec(kind: str) -> Node:
    found: Node = DOCUMENTS[kind]["spec"]
    return found


def version(kind: str) -> Node:
    found: Node = spec(kind)["versions"][0]
    return found


def at(kind: str, path: str = "") -> Node:
    """The schema of a field; `[]` steps into list items."""
    node: Node = version(kind)["schema"]["openAPIV3Schema"]
    for step in path.split(".") if path else ():
        node = node["properties"][step.removesuffix("[]")]
        node = node["items"] if step.endswith("[]") else node
    return node


def nodes(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, part in node.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}[]")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


def test_the_five_kinds_have_a_crd_each() -> None:
    assert set(DOCUMENTS) == {resource.kind for resource in AIM_KINDS}


@EVERY_KIND
def test_kubernetes_knows_the_form(kind: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[kind], kubernetes_validate.latest_version(), strict=True)


@EVERY_KIND
def test_the_names_agree_with_the_paths_we_ask_for(kind: str) -> None:
    resource, names = RESOURCES[kind], spec(kind)["names"]
    assert DOCUMENTS[kind]["metadata"]["name"] == f"{names['plural']}.{spec(kind)['group']}"
    assert (spec(kind)["group"], version(kind)["name"], names["plural"]) == (
        resource.group,
        resource.version,
        resource.plural,
    )
    assert (AIM_GROUP, AIM_VERSION) == ("aim.silogen.ai", "v1alpha1")
    assert (names["kind"], names["listKind"], names["singular"]) == (
        kind,
        f"{kind}List",
        kind.lower(),
    )
    assert version(kind)["served"] is version(kind)["storage"] is True


@pytest.mark.parametrize(
    ("kind", "scope", "short_names", "columns"),
    [
        pytest.param(
            "AIMClusterModel",
            "Cluster",
            ["aimclm", "aimclmodel"],
            ["Name", "Image", "Ready", "Age"],
            id="model",
        ),
        pytest.param(
            "AIMNamespaceConfig",
            "Namespaced",
            ["aimns"],
            ["Gateway", "Auto route", "Age"],
            id="config",
        ),
        pytest.param(
            "AIMServiceTemplate",
            "Namespaced",
            ["aimst"],
            ["Model", "Metric", "Precision", "GPUs", "GPU", "TP", "Status", "Age"],
            id="template",
        ),
        pytest.param(
            "AIMService",
            "Namespaced",
            ["aimsvc"],
            ["Model", "Template", "Replicas", "Status", "Age"],
            id="service",
        ),
        pytest.param(
            "ModelCache",
            "Namespaced",
            ["mc"],
            ["Source", "Size", "Status", "Progress", "PVC", "Age"],
            id="cache",
        ),
    ],
)
def test_how_kubectl_shows_a_kind(
    kind: str, scope: str, short_names: list[str], columns: list[str]
) -> None:
    assert spec(kind)["scope"] == scope
    assert spec(kind)["names"]["shortNames"] == short_names
    assert spec(kind)["names"]["categories"] == ["aim"]
    assert [column["name"] for column in version(kind)["additionalPrinterColumns"]] == columns


@EVERY_KIND
def test_every_column_shows_a_field_of_the_schema(kind: str) -> None:
    for column in version(kind)["additionalPrinterColumns"]:
        path = column["jsonPath"].removeprefix(".")
        if path.startswith("metadata."):
            assert (path, column["type"]) == ("metadata.creationTimestamp", "date")
        elif "?(" in path:
            assert path == 'status.conditions[?(@.type=="Ready")].status'
        else:
            assert at(kind, path).get("type", "string") == column["type"]


def test_the_name_column_shows_the_key_others_refer_to() -> None:
    assert version("AIMClusterModel")["additionalPrinterColumns"][0]["jsonPath"] == ".spec.name"


@EVERY_KIND
def test_status_is_a_subresource_of_all_but_the_config(kind: str) -> None:
    has_status = kind != "AIMNamespaceConfig"
    assert version(kind).get("subresources") == ({"status": {}} if has_status else None)
    assert ("status" in at(kind)["properties"]) is has_status


@EVERY_KIND
def test_the_schema_is_structural(kind: str) -> None:
    for path, node in nodes(at(kind)):
        assert not node.keys() & {
            "$ref",
            "$defs",
            "anyOf",
            "allOf",
            "oneOf",
            "not",
            "const",
            "title",
            "nullable",
        }, path
        assert (
            node.get("type") in {"object", "array", "string", "integer", "boolean"}
            or node.get("x-kubernetes-int-or-string") is True
        ), path
        assert ("type" in node) is not ("x-kubernetes-int-or-string" in node), path
        assert node.get("default", "") is not None, path
        assert len(node.keys() & {"properties", "additionalProperties"}) == (
            node.get("type") == "object" and path != ".metadata"
        ), path
        assert ("items" in node) is (node.get("type") == "array"), path
        assert set(node.get("required", ())) <= set(node.get("properties", ())), path


@EVERY_KIND
def test_every_field_of_spec_and_status_is_described(kind: str) -> None:
    for path, node in nodes(at(kind)):
        if path.count(".") >= 2 and not path.endswith("[]"):
            assert node.get("description"), path


@EVERY_KIND
def test_defaults_are_values_their_own_schema_takes(kind: str) -> None:
    types = {"string": str, "integer": int, "boolean": bool}
    for path, node in nodes(at(kind)):
        if "default" in node:
            assert isinstance(node["default"], types[node["type"]]), path
            assert node["default"] in node.get("enum", [node["default"]]), path


@pytest.mark.parametrize(
    ("kind", "path", "required"),
    [
        ("AIMClusterModel", "", {"spec"}),
        ("AIMClusterModel", "spec", {"name", "image"}),
        ("AIMNamespaceConfig", "", set()),
        ("AIMNamespaceConfig", "spec", set()),
        ("AIMNamespaceConfig", "spec.routing", set()),
        ("AIMNamespaceConfig", "spec.routing.gateway", {"name"}),
        ("AIMNamespaceConfig", "spec.credentials", set()),
        ("AIMNamespaceConfig", "spec.credentials.s3[]", set()),
        ("AIMServiceTemplate", "", {"spec"}),
        (
            "AIMServiceTemplate",
            "spec",
            {"model", "metric", "gpusPerReplica", "gpuModel", "tensorParallelism"},
        ),
        ("AIMService", "", {"spec"}),
        ("AIMService", "spec", {"model", "templateRef"}),
        ("ModelCache", "", {"spec"}),
        ("ModelCache", "spec", {"sourceUri"}),
        ("ModelCache", "spec.env[]", {"name"}),
        ("ModelCache", "status", set()),
        (
            "ModelCache",
            "status.conditions[]",
            {"type", "status", "lastTransitionTime", "reason", "message"},
        ),
    ],
)
def test_what_is_required(kind: str, path: str, required: set[str]) -> None:
    assert set(at(kind, path).get("required", ())) == required


@pytest.mark.parametrize(
    ("kind", "path", "values", "default"),
    [
        ("AIMServiceTemplate", "spec.metric", ["latency", "throughput"], None),
        (
            "AIMServiceTemplate",
            "spec.precision",
            ["auto", "fp4", "fp8", "fp16", "fp32", "bf16", "int4", "int8"],
            "auto",
        ),
        (
            "AIMServiceTemplate",
            "status.status",
            ["Pending", "Progressing", "Available", "Failed"],
            "Pending",
        ),
        (
            "AIMService",
            "status.status",
            ["Pending", "Starting", "Running", "Failed", "Degraded"],
            "Pending",
        ),
        (
            "ModelCache",
            "status.status",
            ["Pending", "Progressing", "Available", "Failed"],
            "Pending",
        ),
        ("ModelCache", "status.conditions[].status", ["True", "False", "Unknown"], None),
    ],
)
def test_enumerations(kind: str, path: str, values: list[str], default: str | None) -> None:
    assert sorted(at(kind, path)["enum"]) == sorted(values)
    assert at(kind, path).get("default") == default


@pytest.mark.parametrize(
    ("kind", "path", "constraints"),
    [
        ("AIMService", "spec.cacheModel", {"type": "boolean", "default": True}),
        ("AIMService", "spec.replicas", {"type": "integer", "default": 1, "minimum": 0}),
        ("AIMService", "spec.configRef", {"type": "string", "default": "default"}),
        ("AIMService", "spec.model", {"minLength": 1}),
        ("AIMService", "spec.templateRef", {"minLength": 1}),
        ("AIMClusterModel", "spec.name", {"minLength": 1}),
        ("AIMClusterModel", "spec.image", {"minLength": 1}),
        ("AIMServiceTemplate", "spec.model", {"minLength": 1}),
        ("AIMServiceTemplate", "spec.gpuModel", {"minLength": 1}),
        ("AIMServiceTemplate", "spec.gpusPerReplica", {"type": "integer", "minimum": 1}),
        ("AIMServiceTemplate", "spec.tensorParallelism", {"type": "integer", "minimum": 1}),
        ("AIMServiceTemplate", "spec.warmCache", {"type": "boolean", "default": False}),
        (
            "AIMNamespaceConfig",
            "spec.routing.autoCreateRoute",
            {"type": "boolean", "default": True},
        ),
        ("AIMNamespaceConfig", "spec.credentials.s3", {"x-kubernetes-list-type": "atomic"}),
        ("AIMNamespaceConfig", "spec.cacheStorageClassName", {"type": "string"}),
        (
            "ModelCache",
            "spec.sourceUri",
            {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "pattern": r"^(hf|s3)://[^\s/]\S*$",
            },
        ),
        ("ModelCache", "spec.size", {"x-kubernetes-int-or-string": True}),
        (
            "ModelCache",
            "spec.env",
            {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
        ("ModelCache", "status.lastUsed", {"type": "string", "format": "date-time"}),
        ("ModelCache", "status.sizeBytes", {"type": "integer", "format": "int64"}),
        (
            "AIMServiceTemplate",
            "status.modelSources",
            {"type": "array", "x-kubernetes-list-type": "atomic"},
        ),
        ("AIMServiceTemplate", "status.profile.gpu_count", {"type": "integer"}),
        ("AIMServiceTemplate", "status.attempts", {"type": "integer"}),
        ("ModelCache", "status.nextAttemptTime", {"type": "string", "format": "date-time"}),
        *(
            (kind, f"{path}.{field}", {"minimum": 0, "maximum": (1 << 31) - 1})
            for kind, path in (("AIMService", "spec"), ("AIMNamespaceConfig", "spec.runtime"))
            for field in (
                "securityContext.runAsUser",
                "securityContext.runAsGroup",
                "podSecurityContext.runAsUser",
                "podSecurityContext.fsGroup",
                "podSecurityContext.supplementalGroups[]",
            )
        ),
    ],
)
def test_constraints_and_defaults(kind: str, path: str, constraints: Node) -> None:
    node = at(kind, path)
    assert {name: node.get(name) for name in constraints} == constraints


@EVERY_KIND
def test_an_admitted_text_can_be_read(kind: str) -> None:
    r"""`\s` is ASCII for the API server (RE2) and Unicode for pydantic: one such text in a config
    would stop its namespace. So pydantic does not check the pattern of sources."""
    patterns = {str(node["pattern"]) for _, node in nodes(at(kind)) if "pattern" in node}
    classes = re.compile(r"\\[sSwWdDbB]")
    assert {each for each in patterns if classes.search(each)} <= {SOURCE_URI_PATTERN}
    uri = "hf://a/b\u00a0c"
    assert CacheSpec.model_validate({"sourceUri": uri}).source_uri == uri


@pytest.mark.parametrize("kind", [kind for kind in DOCUMENTS if kind != "AIMNamespaceConfig"])
def test_conditions_are_a_map_by_type_and_never_go_back(kind: str) -> None:
    conditions = at(kind, "status.conditions")
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == (
        "map",
        ["type"],
    )
    for node in (at(kind, "status"), conditions["items"]):
        (rule,) = node["x-kubernetes-validations"]
        assert "self.observedGeneration >= oldSelf.observedGeneration" in rule["rule"]
        assert "observedGeneration" in rule["message"]


IMMUTABLE = {
    "AIMServiceTemplate": {
        "model",
        "metric",
        "precision",
        "gpusPerReplica",
        "gpuModel",
        "tensorParallelism",
    },
    "ModelCache": {"sourceUri"},
}


@EVERY_KIND
def test_an_immutable_field_is_required_and_named(kind: str) -> None:
    """A rule on a field does not run where the field is removed: it must be required, or come
    back by a default."""
    found = set()
    for name, node in at(kind, "spec")["properties"].items():
        for rule in node.get("x-kubernetes-validations", ()):
            if rule["rule"] == "self == oldSelf":
                found.add(name)
                assert rule["message"].startswith(name)
                assert name in at(kind, "spec")["required"] or "default" in node
    assert found == IMMUTABLE.get(kind, set())


@pytest.mark.parametrize(
    ("kind", "path", "parts"),
    [
        ("AIMServiceTemplate", "spec", ["tensorParallelism", "gpusPerReplica"]),
        ("AIMService", "", ["metadata.name", "48"]),
        ("ModelCache", "", ["metadata.name", "54"]),
        ("ModelCache", "spec.size", ["size", "greater than 0"]),
    ],
)
def test_rules_in_cel_name_field_and_rule(kind: str, path: str, parts: list[str]) -> None:
    (rule,) = at(kind, path)["x-kubernetes-validations"]
    assert all(word in rule["message"] for word in parts)


@EVERY_KIND
def test_lists_with_rules_in_their_items_are_bounded(kind: str) -> None:
    """Else the API server rejects the CRD: the cost of a rule is estimated with the largest list
    (KEP-2876)."""
    for path, node in nodes(at(kind)):
        if "items" in node and any(
            "x-kubernetes-validations" in part for _, part in nodes(node["items"])
        ):
            assert "maxItems" in node, path


def test_a_kind_and_its_crd_take_the_same_fields() -> None:
    for kind in KINDS:
        assert set(at(kind.__name__)["properties"]) == {
            "apiVersion",
            "kind",
            "metadata",
            *_wire_names(kind),
        }


def _wire_names(kind: type[Kind]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}
