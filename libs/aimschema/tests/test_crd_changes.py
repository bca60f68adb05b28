"""Which changes of a CRD keep objects valid and whole."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from aimschema.crd_changes import compare
from aimschema.crds import crd
from aimschema.kinds import KINDS

CRD = crd(next(kind for kind in KINDS if kind.__name__ == "AIMService"))
Change = Callable[[dict[str, Any]], Any]


def version(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["versions"][0]
    return found


def spec(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = version(body)["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def fields(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec(body)["properties"]
    return found


def rules(body: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = version(body)["schema"]["openAPIV3Schema"][
        "x-kubernetes-validations"
    ]
    return found


def after(change: Change) -> list[tuple[str, str]]:
    new = copy.deepcopy(CRD)
    change(new)
    return [(breach.rule, breach.field) for breach in compare(CRD, new)]


def require(name: str, schema: dict[str, Any] | None = None) -> Change:
    def change(body: dict[str, Any]) -> None:
        fields(body).setdefault(name, schema or {"type": "string"})
        spec(body)["required"] = [*spec(body).get("required", ()), name]

    return change


def conditions(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = version(body)["schema"]["openAPIV3Schema"]["properties"]["status"][
        "properties"
    ]["conditions"]
    return found


REJECTED = {
    "a field goes": (lambda b: fields(b).pop("replicas"), "FIELD_REMOVED", "spec.replicas"),
    "a new field must be there": (require("owner"), "FIELD_REQUIRED", "spec.owner"),
    "a type": (
        lambda b: fields(b)["templateRef"].update(type="integer"),
        "TYPE_CHANGED",
        "spec.templateRef",
    ),
    "shorter": (
        lambda b: fields(b)["templateRef"].update(maxLength=3),
        "TIGHTENED",
        "spec.templateRef",
    ),
    "at least": (lambda b: fields(b)["replicas"].update(minimum=5), "TIGHTENED", "spec.replicas"),
    "a pattern": (
        lambda b: fields(b)["templateRef"].update(pattern="^x$"),
        "TIGHTENED",
        "spec.templateRef",
    ),
    "an enumeration": (
        lambda b: fields(b)["templateRef"].update(enum=["a"]),
        "VALUE_REMOVED",
        "spec.templateRef",
    ),
    "a CEL rule": (
        lambda b: spec(b).update({"x-kubernetes-validations": [{"rule": "self.replicas > 1"}]}),
        "RULE_ADDED",
        "spec",
    ),
    "what a CEL rule compares with": (
        lambda b: rules(b)[0].update(optionalOldSelf=True),
        "RULE_ADDED",
        "",
    ),
    "null is rejected": (
        lambda b: fields(b)["templateRef"].update(nullable=False),
        "TIGHTENED",
        "spec.templateRef",
    ),
    "one of several": (
        lambda b: fields(b)["templateRef"].update(allOf=[{"minLength": 2}]),
        "TIGHTENED",
        "spec.templateRef",
    ),
    "a first default": (
        lambda b: fields(b)["model"].update(default="m"),
        "DEFAULT_CHANGED",
        "spec.model",
    ),
    "a default": (
        lambda b: fields(b)["cacheModel"].update(default=False),
        "DEFAULT_CHANGED",
        "spec.cacheModel",
    ),
    "a field of an item": (
        lambda b: conditions(b)["items"]["properties"].pop("message"),
        "FIELD_REMOVED",
        "status.conditions[].message",
    ),
    "how a list merges": (
        lambda b: conditions(b).update({"x-kubernetes-list-type": "atomic"}),
        "TIGHTENED",
        "status.conditions",
    ),
    "a version": (lambda b: version(b).update(name="v1beta1"), "VERSION_REMOVED", "v1alpha1"),
    "what is stored": (lambda b: version(b).update(storage=False), "STORAGE_CHANGED", "v1alpha1"),
    "the status subresource": (
        lambda b: version(b).pop("subresources"),
        "SUBRESOURCE_REMOVED",
        "v1alpha1",
    ),
    "the scope": (lambda b: b["spec"].update(scope="Cluster"), "KIND_CHANGED", "scope"),
}


@pytest.mark.parametrize(("change", "rule", "field"), REJECTED.values(), ids=REJECTED.keys())
def test_a_change_that_breaks_objects_is_rejected(change: Change, rule: str, field: str) -> None:
    assert (rule, field) in after(change)


ALLOWED = {
    "a new field": lambda b: fields(b).update(note={"type": "string"}),
    "a new field that has a default": require("tier", {"type": "string", "default": "a"}),
    "shorter than it had to be": lambda b: fields(b)["templateRef"].pop("minLength"),
    "other words": lambda b: fields(b)["replicas"].update(description="Other words."),
    "one more column": (
        lambda b: version(b)["additionalPrinterColumns"].append(
            {"name": "X", "type": "string", "jsonPath": ".spec.x"}
        )
    ),
}


@pytest.mark.parametrize("change", ALLOWED.values(), ids=ALLOWED.keys())
def test_a_change_that_objects_do_not_notice_is_allowed(change: Change) -> None:
    assert after(change) == []
