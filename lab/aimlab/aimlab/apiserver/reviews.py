"""Asking what somebody may do: SelfSubjectAccessReview and SubjectAccessReview
(authorization.k8s.io/v1). Pure but for the RBAC objects it reads.

Nothing is stored; the answer is the request with a `status`. Refused as
k8s.io/kubernetes/pkg/apis/authorization/validation does.
"""

import msgspec

from aimlab.apiserver.access import Access, Attributes, User
from aimlab.apiserver.errors import Cause, bad_request, invalid
from aimlab.apiserver.objects import Json, Obj, dig

GROUP = "authorization.k8s.io"
KINDS = {
    "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "subjectaccessreviews": "SubjectAccessReview",
}


def answer(plural: str, body: Json, asking: User, access: Access) -> Obj:
    """The review with its answer. ApiError 400 for what is no object, 422 for one that asks for
    nothing, for two things, or of nobody."""
    if not isinstance(body, dict):
        raise bad_request("the body is not an object")
    kind, spec = KINDS[plural], body.get("spec") or {}
    wanted, url = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    problems = []
    if wanted is None and url is None:
        words = (
            "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must"
            " be specified"
        )
        problems.append(Cause("spec.resourceAttributes", "FieldValueInvalid", words))
    if wanted is not None and url is not None:
        words = (
            f"Invalid value: {msgspec.json.encode(url).decode()}: cannot be specified in"
            " combination with resourceAttributes"
        )
        problems.append(Cause("spec.nonResourceAttributes", "FieldValueInvalid", words))
    if kind == "SubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        problems.append(
            Cause(
                "spec.user",
                "FieldValueInvalid",
                'Invalid value: "": at least one of user or group must be specified',
            )
        )
    if problems:
        raise invalid(GROUP, kind, "", problems)
    who = (
        asking
        if kind == "SelfSubjectAccessReview"
        else User(spec.get("user") or "", frozenset(spec.get("groups") or ()))
    )
    allowed, why = access.decide(who, _asked(wanted or {}, url or {}))
    status = {"allowed": allowed, **({"reason": why} if why else {})}
    return {
        "kind": kind,
        "apiVersion": f"{GROUP}/v1",
        "metadata": dig(body, "metadata") or {},
        "spec": spec,
        "status": status,
    }


def _asked(wanted: Obj, url: Obj) -> Attributes:
    resource = "/".join(
        part for part in (wanted.get("resource", ""), wanted.get("subresource", "")) if part
    )
    verb = wanted.get("verb", "") or url.get("verb", "")
    return Attributes(
        verb,
        wanted.get("group", ""),
        resource,
        wanted.get("namespace", ""),
        wanted.get("name", ""),
        url.get("path", ""),
    )
