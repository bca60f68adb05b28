"""CustomResourceDefinitions (apiextensions.k8s.io/v1): defaults, checks, conditions, and the
resources they define. Pure."""

from collections.abc import Iterator

from aimlab.apiserver import list_map_keys
from aimlab.apiserver.cel import compile_rules
from aimlab.apiserver.errors import Cause
from aimlab.apiserver.kinds import STATUS_VERBS, Resource
from aimlab.apiserver.objects import Obj, clone, dig

KIND = "CustomResourceDefinition"
COLLECTION = ("apiextensions.k8s.io", "customresourcedefinitions")
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
AGE_COLUMN: Obj = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def fill(crd: Obj) -> None:
    """Defaults of a definition."""
    spec = crd.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = str(names.get("kind") or "")
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})


def first_status(crd: Obj) -> Obj:
    """The status a definition is created with."""
    stored = [
        version["name"] for version in crd["spec"].get("versions") or [] if version.get("storage")
    ]
    return {
        "acceptedNames": {"kind": "", "plural": ""},
        "conditions": None,
        "storedVersions": stored,
    }


def established_status(crd: Obj, time: str) -> Obj:
    """The status of a definition whose names are accepted and served."""
    stored = list(dig(crd, "status", "storedVersions") or [])
    stored += [
        version["name"]
        for version in crd["spec"]["versions"]
        if version.get("storage") and version["name"] not in stored
    ]
    accepted = [
        found
        for found in dig(crd, "status", "conditions") or []
        if found["type"] in ("NamesAccepted", "Established")
    ]
    conditions = accepted or [
        condition("NamesAccepted", "NoConflicts", "no conflicts found", time),
        condition(
            "Established", "InitialNamesAccepted", "the initial names have been accepted", time
        ),
    ]
    return {
        "acceptedNames": clone(crd["spec"]["names"]),
        "conditions": conditions,
        "storedVersions": stored,
    }


def condition(kind: str, reason: str, message: str, time: str) -> Obj:
    """A condition that is true."""
    return {
        "type": kind,
        "status": "True",
        "lastTransitionTime": time,
        "reason": reason,
        "message": message,
    }


def validate(crd: Obj, old: Obj | None) -> list[Cause]:
    """What is wrong with a definition, including rules that do not compile."""
    spec = crd["spec"]
    found = list(_missing_fields(spec))
    if found:
        return found
    name = crd["metadata"].get("name")
    if name != f"{spec['names']['plural']}.{spec['group']}":
        message = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        found.append(Cause("metadata.name", "FieldValueInvalid", message))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        found.append(Cause("spec.versions", "FieldValueInvalid", message))
    for field in ("group", "scope"):
        if old is not None and old["spec"].get(field) != spec[field]:
            message = f'Invalid value: "{spec[field]}": field is immutable'
            found.append(Cause(f"spec.{field}", "FieldValueInvalid", message))
    for index, version in enumerate(spec["versions"]):
        found += _validate_schema(
            dig(version, "schema", "openAPIV3Schema"),
            f"spec.versions[{index}].schema.openAPIV3Schema",
        )
    return found


def _missing_fields(spec: Obj) -> Iterator[Cause]:
    names = spec["names"]
    required = {
        "spec.group": spec.get("group"),
        "spec.scope": spec.get("scope"),
        "spec.versions": spec.get("versions"),
        "spec.names.plural": names.get("plural"),
        "spec.names.kind": names.get("kind"),
    }
    for field, value in required.items():
        if not value:
            yield Cause(field, "FieldValueRequired", "Required value")


def _validate_schema(schema: Obj | None, path: str) -> list[Cause]:
    if not isinstance(schema, dict):
        return [Cause(path, "FieldValueRequired", "Required value: schemas are required")]
    if schema.get("type") != "object":
        return [
            Cause(f"{path}.type", "FieldValueInvalid", "Invalid value: must be object at the root")
        ]
    try:
        compile_rules(schema)
    except (ValueError, KeyError) as error:
        return [
            Cause(
                f"{path}.x-kubernetes-validations",
                "FieldValueInvalid",
                f"Invalid value: compilation failed: {error}",
            )
        ]
    return list(_unstructural(schema, path))


def _unstructural(schema: Obj, path: str) -> list[Cause]:
    found = []
    free = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    if not schema.get("type") and not free:
        found.append(
            Cause(
                f"{path}.type",
                "FieldValueRequired",
                "Required value: must not be empty for specified object fields",
            )
        )
    for name, sub in (schema.get("properties") or {}).items():
        found += _unstructural(sub, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found += _unstructural(schema[name], f"{path}.{name}")
    return found


def resources(crd: Obj) -> list[Resource]:
    """The resources of the served versions of a valid definition."""
    return [_resource(crd, version) for version in crd["spec"]["versions"] if version.get("served")]


def _resource(crd: Obj, version: Obj) -> Resource:
    spec, names = crd["spec"], crd["spec"]["names"]
    schema = version["schema"]["openAPIV3Schema"]
    status = "status" in (version.get("subresources") or {})
    return Resource(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names["singular"],
        namespaced=spec["scope"] == "Namespaced",
        storage=(spec["group"], names["plural"]),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        status=status,
        subresources={"status": (names["kind"], STATUS_VERBS)} if status else {},
        fields=frozenset(
            found["jsonPath"].lstrip(".") for found in version.get("selectableFields") or ()
        ),
        schema=schema,
        rules=compile_rules(schema),
        shape={
            **schema,
            "properties": {**(schema.get("properties") or {}), "metadata": list_map_keys.META},
        },
        columns=tuple(version.get("additionalPrinterColumns") or (AGE_COLUMN,)),
        list_kind=names["listKind"],
        counts_generation=True,
        blind_update=False,
    )
