"""What the policies of the chart have against a write, as the API server double evaluates them."""

from functools import cache

from aim_testing.policies.cases import CHART, Body, Case
from aimlab.apiserver.access import account
from aimlab.apiserver.kinds import BUILTINS, Resource
from aimlab.apiserver.policies import Write, denials
from aimlab.testing.charts import NAMESPACE, render
from aimschema.resources import CACHE, INFERENCE_SERVICE, ROUTE

POLICY = "ValidatingAdmissionPolicy"
CUSTOM = {resource.kind: resource for resource in (CACHE, INFERENCE_SERVICE, ROUTE)}


@cache
def policies(*arguments: str) -> tuple[Body, ...]:
    return tuple(body for body in render(CHART, *arguments) if body["kind"] == POLICY)


def resource_of(body: Body) -> Resource:
    """As the API server double knows kinds."""
    known = CUSTOM.get(body["kind"])
    if known is None:
        return next(each for each in BUILTINS if each.kind == body["kind"])
    return Resource(
        group=known.group,
        version=known.version,
        kind=known.kind,
        plural=known.plural,
        singular=known.kind.lower(),
        namespaced=True,
        storage=(known.group, known.plural),
    )


def violated(case: Case, who: str = "", *arguments: str) -> set[tuple[str, str]]:
    """The rules of the policies that deny the write: policy and message. `who` writes it; empty:
    the account of the case. `arguments` are those of Helm."""
    body = case.body
    write = Write(
        resource_of(body),
        case.operation,
        body["metadata"]["namespace"],
        body["metadata"]["name"],
        account(NAMESPACE, who or case.account),
        case.after,
        case.before,
    )
    return {
        (policy["metadata"]["name"], each["message"])
        for policy in policies(*arguments)
        if any(
            write.resource.plural in rule["resources"] and case.operation in rule["operations"]
            for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        )
        for each in denials(policy, write)
    }
