"""Whatever the services render has a golden file, and is valid for the kind it is of.

Ours by deploy/crds, Kubernetes' own by its OpenAPI schemas, those of KServe and the Gateway API by
the real CRDs, not by the lab's permissive ones. Those are looked for in the folder AIM_REAL_CRDS,
else in `shared/crds` beside the repository. Checking against CRDs follows the API server:
structural schemas, unknown fields rejected (it would prune them) unless the schema preserves them.
"""

import ast
import os
from functools import cache
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from aim_testing import kubernetes_schemas
from aimctl.manifests import documents

REPOSITORY = Path(__file__).resolve().parents[2]
CRDS = Path(os.environ.get("AIM_REAL_CRDS") or REPOSITORY.parent / "shared" / "crds")
GOLDEN = sorted(REPOSITORY.glob("services/*/tests/golden/*.yaml"))
no_crds = pytest.mark.skipif(
    not CRDS.is_dir(), reason=f"no folder of real CRDs: set AIM_REAL_CRDS ({CRDS} is not there)"
)
PRESERVE, INT_OR_STRING = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"
KEYWORDS = (
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    "format",
)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """openAPIV3Schema as JSON schema that also rejects what the API server would prune."""
    if schema.get(INT_OR_STRING):
        return {"type": ["integer", "string"]}
    made: dict[str, Any] = {name: schema[name] for name in KEYWORDS if name in schema}
    if "type" in schema:
        made["type"] = [schema["type"], "null"] if schema.get("nullable") else schema["type"]
    for junctor in ("allOf", "anyOf", "oneOf"):
        if junctor in schema:
            made[junctor] = [loose(each) for each in schema[junctor]]
    if "items" in schema:
        made["items"] = strict(schema["items"])
    properties, additional = schema.get("properties"), schema.get("additionalProperties")
    if properties is not None:
        made["properties"] = {name: strict(each) for name, each in properties.items()}
    if isinstance(additional, dict):
        made["additionalProperties"] = strict(additional)
    elif schema.get("type") == "object" and additional is not True and not schema.get(PRESERVE):
        made["additionalProperties"] = False
    return made


def loose(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema inside allOf and its like only adds rules: it says nothing of which fields there
    are."""
    found = strict(schema)
    found.pop("additionalProperties", None)
    return found


@cache
def schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """By apiVersion and kind."""
    found = {}
    for file in [*CRDS.glob("*.yaml"), *(REPOSITORY / "deploy" / "crds").glob("*.yaml")]:
        for crd in documents(file.read_text()):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            for version in crd["spec"]["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {"metadata": {"type": "object"}}
                found[f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]] = (
                    schema
                )
    return found


def problems(body: dict[str, Any]) -> list[str]:
    schema = schemas()[body["apiVersion"], body["kind"]]
    return [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(body)
    ]


@cache
def rendered(file: Path) -> dict[str, Any]:
    (body,) = documents(file.read_text())
    return cast(dict[str, Any], body)


def by_schema(group: str) -> list[Any]:
    """Golden files of `builtin` kinds, of `our` kinds or of `other` groups' kinds."""

    def of(api_version: str) -> str:
        if api_version.startswith("aim."):
            return "our"
        return (
            "other"
            if api_version.startswith(("serving.kserve.io", "gateway.networking.k8s.io"))
            else "builtin"
        )

    return [
        pytest.param(
            file, id=f"{file.parts[-4]}-{file.stem}", marks=no_crds if group == "other" else ()
        )
        for file in GOLDEN
        if of(rendered(file)["apiVersion"]) == group
    ]


def renderers() -> set[tuple[str, str]]:
    """(package, function with dashes) of everything a service renders: the public functions of
    its render.py that give a Body."""
    return {
        (file.parent.name, node.name.replace("_", "-"))
        for file in REPOSITORY.glob("services/*/*/render.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and node.returns is not None
        and ast.unparse(node.returns) == "Body"
    }


def test_renderers_and_golden_files_match() -> None:
    """Otherwise an upgrade that restarts model servers could pass a review unseen."""
    assert {
        (f"aim_{file.parts[-4]}", file.stem.partition(".")[0]) for file in GOLDEN
    } == renderers()


def test_every_kind_that_is_made_is_among_them() -> None:
    made = {
        "Job",
        "PersistentVolumeClaim",
        "ConfigMap",
        "ModelCache",
        "InferenceService",
        "HTTPRoute",
        "Event",
        "PodDisruptionBudget",
    }
    assert {rendered(file)["kind"] for file in GOLDEN} == made


@pytest.mark.parametrize("file", by_schema("builtin"))
def test_kubernetes_takes_it(file: Path) -> None:
    kubernetes_schemas.validate(rendered(file))


@pytest.mark.parametrize("file", by_schema("builtin"))
def test_kubernetes_would_notice_an_unknown_field(file: Path) -> None:
    with pytest.raises(jsonschema.ValidationError, match="noSuchField"):
        kubernetes_schemas.validate(rendered(file) | {"noSuchField": 1})


@pytest.mark.parametrize("file", [*by_schema("our"), *by_schema("other")])
def test_the_real_kinds_take_it(file: Path) -> None:
    assert problems(rendered(file)) == []


@pytest.mark.parametrize("file", [*by_schema("our"), *by_schema("other")])
def test_an_unknown_field_would_be_noticed(file: Path) -> None:
    body = rendered(file)
    changed = body | {"spec": body["spec"] | {"noSuchField": 1}}
    assert any("noSuchField" in problem for problem in problems(changed))


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "string"}}},
            {"a": "x"},
            True,
            id="known",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "string"}}},
            {"b": "x"},
            False,
            id="unknown",
        ),
        pytest.param({"type": "object", PRESERVE: True}, {"b": "x"}, True, id="preserved"),
        pytest.param(
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"b": "x"},
            False,
            id="map-of-numbers",
        ),
        pytest.param(
            {INT_OR_STRING: True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "8Gi",
            True,
            id="int-or-string",
        ),
        pytest.param({"type": "string", "nullable": True}, None, True, id="nullable"),
        pytest.param(
            {"type": "object", "properties": {"a": {}}, "oneOf": [{"required": ["a"]}]},
            {"a": 1},
            True,
            id="junctor",
        ),
    ],
)
def test_how_schemas_are_read(schema: dict[str, Any], value: Any, *, fits: bool) -> None:
    assert jsonschema.Draft202012Validator(strict(schema)).is_valid(value) is fits
