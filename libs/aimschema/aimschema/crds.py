"""CustomResourceDefinitions from the kinds.

The schema must be structural (KEP-1693): no references, no `anyOf` around types, no null, a type at
every level. An optional field is one that is not in `required`.
"""

from collections.abc import Iterator
from typing import Any

from aimschema.kinds import IMMUTABLE_RULE, Kind
from aimschema.resources import AIM_GROUP, AIM_VERSION, RESOURCES

_PRESERVED = frozenset(
    {
        "type",
        "description",
        "enum",
        "default",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "pattern",
        "format",
        "maxItems",
        "maxProperties",
        "required",
    }
    | {
        "x-kubernetes-validations",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-int-or-string",
    }
)


def crd(kind: type[Kind]) -> dict[str, Any]:
    """The CRD of a kind, as a YAML-ready document."""
    resource = RESOURCES[kind.__name__]
    schema = kind.model_json_schema(by_alias=True)
    has_status = "status" in kind.model_fields
    names = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "plural": resource.plural,
        "singular": resource.kind.lower(),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{AIM_GROUP}"},
        "spec": {
            "group": AIM_GROUP,
            "names": {**names, "shortNames": list(resource.short_names), "categories": ["aim"]},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [
                {
                    "name": AIM_VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        c.model_dump(by_alias=True, exclude_defaults=True) | {"type": c.type}
                        for c in kind.columns
                    ],
                    **({"subresources": {"status": {}}} if has_status else {}),
                    "schema": {"openAPIV3Schema": _root(kind, schema)},
                }
            ],
        },
    }


def immutable_fields(kind: type[Kind]) -> frozenset[tuple[str, ...]]:
    """The paths below `spec` that cannot be changed."""
    schema = kind.model_json_schema(by_alias=True)
    spec = _structural(schema, schema.get("$defs", {}))["properties"]["spec"]
    return frozenset(_immutable(spec, ()))


def _immutable(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    rules = [each["rule"] for each in node.get("x-kubernetes-validations", ())]
    if IMMUTABLE_RULE in rules:
        yield path
    for name, below in node.get("properties", {}).items():
        yield from _immutable(below, (*path, name))


def _root(kind: type[Kind], schema: dict[str, Any]) -> dict[str, Any]:
    structural = _structural(schema, schema.get("$defs", {}))
    structural["properties"] = {
        "apiVersion": {"type": "string", "description": "Version of the schema."},
        "kind": {"type": "string", "description": "Kind of the object."},
        "metadata": {"type": "object"},
        **structural["properties"],
    }
    if kind.rules:
        structural["x-kubernetes-validations"] = [dict(rule) for rule in kind.rules]
    return structural


def _structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A pydantic schema node as a structural one."""
    flat = _flatten(schema, definitions)
    node = {name: value for name, value in flat.items() if name in _PRESERVED}
    if isinstance(node.get("default"), dict | list | None):
        node.pop("default", None)
    if "x-kubernetes-int-or-string" in node:
        node.pop("type", None)
    if node.get("type") == "integer":
        node.setdefault("format", "int64" if "maximum" not in node else "int32")
    if "properties" in flat:
        node["properties"] = {
            name: _structural(part, definitions) for name, part in flat["properties"].items()
        }
    if isinstance(flat.get("additionalProperties"), dict):
        node["additionalProperties"] = _structural(flat["additionalProperties"], definitions)
    if "items" in flat:
        node["items"] = _structural(flat["items"], definitions)
    return node


def _flatten(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A node with its references and optional unions resolved. The node's own keywords win."""
    node = dict(schema)
    if "anyOf" in node:
        options = [option for option in node.pop("anyOf") if option.get("type") != "null"]
        if len(options) == 1:
            node = {**options[0], **node}
    if "$ref" in node:
        referred = definitions[node.pop("$ref").rsplit("/", 1)[-1]]
        node = {**_flatten(referred, definitions), **node}
    return node
