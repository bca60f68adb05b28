"""ValidatingAdmissionPolicy (admissionregistration.k8s.io/v1): CEL rules on writes, evaluated with
the outcome of the write.

A policy counts if a binding of it denies. Not supported: parameters, selectors, exclusions,
`authorizer`, `messageExpression`, audits and warnings. An expression that fails counts as
`failurePolicy` defines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cel

from aimlab.apiserver.access import User
from aimlab.apiserver.cel import functions_of, program_of
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, object_details
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Obj, dig
from aimlab.apiserver.webhooks import GROUP, Call, fits
from aimschema.resources import qualified_name

POLICIES = (GROUP, "validatingadmissionpolicies")
BINDINGS = (GROUP, "validatingadmissionpolicybindings")
CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
FAULTS = (
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    IndexError,
    ArithmeticError,
    AttributeError,
)


@dataclass(frozen=True)
class Write:
    """What a policy is asked about. `obj` is None for a deletion, `old` for a creation."""

    resource: Resource
    operation: str
    namespace: str
    name: str
    user: User
    obj: Obj | None
    old: Obj | None

    def request(self) -> Obj:
        """As in admission.k8s.io/v1."""
        resource = self.resource
        return {
            "kind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
            "resource": {
                "group": resource.group,
                "version": resource.version,
                "resource": resource.plural,
            },
            "operation": self.operation,
            "namespace": self.namespace,
            "name": self.name,
            "userInfo": {"username": self.user.name, "groups": sorted(self.user.groups)},
        }


def consult(cluster: Cluster, call: Call, user: User) -> None:
    """ApiError where a policy denies the write."""
    found = [] if call.resource.group == GROUP else list(_matching_policies(cluster, call))
    if not found:
        return
    entry = cluster.store.collections[call.resource.storage].get(call.namespace, call.name)
    old = call.resource.view(entry.obj) if entry else None
    where = (call.resource, call.operation, call.namespace, call.name)
    write = Write(*where, user, call.outcome(), old)
    for policy, binding in found:
        denied = next(denials(policy, write), None)
        if denied is not None:
            raise _denied_error(call.resource, write, (policy, binding), denied)


def _matching_policies(cluster: Cluster, call: Call) -> Iterator[tuple[Obj, str]]:
    """Policies that a binding puts into force, with its name."""
    for entry in cluster.store.collections[BINDINGS].entries(None):
        spec = entry.obj["spec"]
        policy = cluster.store.collections[POLICIES].get("", spec["policyName"])
        rules = dig(policy.obj, "spec", "matchConstraints", "resourceRules") if policy else None
        if (
            policy
            and "Deny" in spec["validationActions"]
            and any(fits(rule, call) for rule in rules or ())
        ):
            yield policy.obj, entry.obj["metadata"]["name"]


def denials(policy: Obj, write: Write) -> Iterator[Obj]:
    """The validations that do not hold, each with the `message` that a real server has for it."""
    spec = policy["spec"]
    bindings = {"object": write.obj, "oldObject": write.old, "request": write.request()}
    strict = spec.get("failurePolicy", "Fail") == "Fail"
    if not all(
        _holds(each["expression"], bindings, default=strict)
        for each in spec.get("matchConditions") or ()
    ):
        return
    variables = bindings["variables"] = {}
    for each in spec.get("variables") or ():
        try:
            variables[each["name"]] = _run(each["expression"], bindings)
        except FAULTS:
            continue  # who reads it fails
    for each in spec["validations"]:
        if not _holds(each["expression"], bindings, default=not strict):
            yield {"message": f"failed expression: {each['expression']}"} | each


def _holds(expression: str, bindings: Obj, *, default: bool) -> bool:
    try:
        return _run(expression, bindings) is True
    except FAULTS:
        return default


def _run(expression: str, bindings: Obj) -> Any:
    """With what the expression reads only: converting whole objects costs more than most rules."""
    program = program_of(expression)
    names = bindings.keys() & set(program.variables())
    read = {name: bindings[name] for name in names}
    return program.execute(cel.Context(read, functions_of(program)))


def _denied_error(resource: Resource, write: Write, by: tuple[Obj, str], found: Obj) -> ApiError:
    """In the wording of a real server (apiserver, plugin/policy/validating)."""
    policy, binding = by
    which = f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding}'"
    message = f"{which} denied request: {found['message']}"
    reason = found.get("reason") or "Invalid"
    details = object_details(resource.group, resource.plural, write.name) | {
        "causes": [{"message": message}]
    }
    subject = f'{qualified_name(resource.plural, resource.group)} "{write.name}"'
    return ApiError(CODES[reason], reason, f"{subject} is forbidden: {message}", details)
