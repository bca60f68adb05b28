"""Access reviews: SelfSubjectAccessReview and SubjectAccessReview (authorization.k8s.io/v1). Pure,
except for the RBAC objects that it reads.

Nothing is stored; the answer is the request with a `status`. Validation follows
k8s.io/kubernetes/pkg/apis/authorization/validation.
"""

from collections.abc import Iterator

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
    """The review with its answer. ApiError 400 if the body is no object; 422 for a review without
    attributes, with both kinds of attributes, or without a user."""
    if not isinstance(body, dict):
        raise bad_request("the body is not an object")
    kind, spec = KINDS[plural], body.get("spec") or {}
    problems = list(_problems(kind, spec))
    if problems:
        raise invalid(GROUP, kind, "", problems)
    who = asking
    if kind == "SubjectAccessReview":
        who = User(spec.get("user") or "", frozenset(spec.get("groups") or ()))
    attributes = _requested_attributes(
        spec.get("resourceAttributes") or {}, spec.get("nonResourceAttributes") or {}
    )
    allowed, why = access.decide(who, attributes)
    return {
        "kind": kind,
        "apiVersion": f"{GROUP}/v1",
        "metadata": dig(body, "metadata") or {},
        "spec": spec,
        "status": {"allowed": allowed, **({"reason": why} if why else {})},
    }


def _problems(kind: str, spec: Obj) -> Iterator[Cause]:
    resource_attributes, url = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource_attributes is None and url is None:
        message = (
            "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must"
            " be specified"
        )
        yield Cause("spec.resourceAttributes", "FieldValueInvalid", message)
    if resource_attributes is not None and url is not None:
        message = (
            f"Invalid value: {msgspec.json.encode(url).decode()}: cannot be specified in"
            " combination with resourceAttributes"
        )
        yield Cause("spec.nonResourceAttributes", "FieldValueInvalid", message)
    if kind == "SubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        message = 'Invalid value: "": at least one of user or group must be specified'
        yield Cause("spec.user", "FieldValueInvalid", message)


def _requested_attributes(resource_attributes: Obj, url: Obj) -> Attributes:
    resource = "/".join(
        part
        for part in (
            resource_attributes.get("resource", ""),
            resource_attributes.get("subresource", ""),
        )
        if part
    )
    verb = resource_attributes.get("verb", "") or url.get("verb", "")
    return Attributes(
        verb,
        resource_attributes.get("group", ""),
        resource,
        resource_attributes.get("namespace", ""),
        resource_attributes.get("name", ""),
        url.get("path", ""),
    )
