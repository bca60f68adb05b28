"""Whether CRDs of a new version keep the objects of an old one valid and complete. Pure.

1. The API server checks a stored object against the new schema at its next write, and prunes fields
   that are not in the schema (Kubernetes, "Extend the Kubernetes API with
   CustomResourceDefinitions"). So no field may be removed, and no new requirement may reject old
   objects.
2. Ratcheting (KEP-4008) accepts old values that violate a new rule, but only on servers that have
   it and only if the field is unchanged. This check does not rely on it: it rejects every new or
   changed rule, and a person decides.
"""

from collections.abc import Iterator
from typing import Any

from aimschema.schema_compat import Breach

Schema = dict[str, Any]
LOWER = ("maxLength", "maximum", "maxItems", "maxProperties")
HIGHER = ("minLength", "minimum", "minItems", "minProperties")
FIXED = (
    *(
        "pattern",
        "format",
        "nullable",
        "multipleOf",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "uniqueItems",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ),
    *(
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-int-or-string",
    ),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"),
)


def compare(old: Schema, new: Schema) -> list[Breach]:
    """What of a CRD breaks with objects that an older version of it let in. Both as YAML-ready
    documents."""
    kind = str(old["spec"]["names"]["kind"])
    return [
        Breach(rule, kind, field, why) for rule, field, why in _definition(old["spec"], new["spec"])
    ]


def _definition(old: Schema, new: Schema) -> Iterator[tuple[str, str, str]]:
    for name in ("group", "scope"):
        if old[name] != new[name]:
            yield "KIND_CHANGED", name, f"it was {old[name]}"
    for name in ("kind", "plural"):
        if old["names"][name] != new["names"][name]:
            yield "KIND_CHANGED", f"names.{name}", f"it was {old['names'][name]}"
    served = {version["name"]: version for version in new["versions"] if version["served"]}
    for version in old["versions"]:
        counterpart = served.get(version["name"])
        if counterpart is None:
            yield "VERSION_REMOVED", version["name"], "clients and manifests ask for it"
            continue
        if version["storage"] and not counterpart["storage"]:
            yield (
                "STORAGE_CHANGED",
                version["name"],
                "stored objects have to be converted, and nothing here does that",
            )
        if version.get("subresources", {}).keys() - counterpart.get("subresources", {}).keys():
            yield "SUBRESOURCE_REMOVED", version["name"], "status writes would be rejected"
        yield from _schema(
            version["schema"]["openAPIV3Schema"], counterpart["schema"]["openAPIV3Schema"], ""
        )


def _schema(old: Schema, new: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    if old.get("type") != new.get("type"):
        yield "TYPE_CHANGED", path, f"it was {old.get('type')}, and now is {new.get('type')}"
    yield from _limits(old, new, path)
    yield from _fields(old, new, path)
    for word, step in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(old.get(word), dict) != isinstance(new.get(word), dict):
            yield (
                "TYPE_CHANGED",
                f"{path}{step}",
                f"{word} was {'there' if word in old else 'not there'}",
            )
        elif isinstance(old.get(word), dict):
            yield from _schema(old[word], new[word], f"{path}{step}")


def _limits(old: Schema, new: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    """Values that were allowed and are not any more."""
    if "enum" in new and (
        removed := set(old.get("enum", ())) - set(new["enum"])
        or ({"anything"} if "enum" not in old else set())
    ):
        yield "VALUE_REMOVED", path, f"objects may have {', '.join(sorted(map(str, removed)))}"
    for word in (*LOWER, *HIGHER):
        was, now = old.get(word), new.get(word)
        if now is not None and (was is None or (now < was if word in LOWER else now > was)):
            yield (
                "TIGHTENED",
                path,
                f"{word} was {'not there' if was is None else was}, and now is {now}",
            )
    for word in FIXED:
        if new.get(word) != old.get(word) and not (word == "pattern" and word not in new):
            yield (
                "TIGHTENED",
                path,
                f"{word} was {old.get(word, 'not there')}, and now is {new.get(word, 'not there')}",
            )
    before, after = (
        [_decisive_part(rule) for rule in schema.get("x-kubernetes-validations", ())]
        for schema in (old, new)
    )
    for rule in after:
        if rule not in before:
            yield "RULE_ADDED", path, f"objects were let in without it: {rule['rule']}"


def _decisive_part(rule: Schema) -> Schema:
    """The decisive part of a rule, without its message."""
    return {
        name: value
        for name, value in rule.items()
        if name not in {"message", "messageExpression", "reason", "fieldPath"}
    }


def _fields(old: Schema, new: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    was, now = old.get("properties", {}), new.get("properties", {})
    for name in was.keys() - now.keys():
        if not new.get("x-kubernetes-preserve-unknown-fields"):
            yield (
                "FIELD_REMOVED",
                f"{path}.{name}".lstrip("."),
                "what objects have there would be pruned",
            )
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        if "default" not in now.get(name, {}):
            yield (
                "FIELD_REQUIRED",
                f"{path}.{name}".lstrip("."),
                "objects need not have it; give it a default",
            )
    for name in was.keys() & now.keys():
        field = f"{path}.{name}".lstrip(".")
        if was[name].get("default") != now[name].get("default"):
            yield (
                "DEFAULT_CHANGED",
                field,
                (
                    f"it was {was[name].get('default', 'not there')}, which objects without it were"
                    " meant to have"
                ),
            )
        yield from _schema(was[name], now[name], field)
