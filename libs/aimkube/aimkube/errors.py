"""What can go wrong at the Kubernetes API, named for what the caller should do next.

    KubeError
    ├── NotFound         404: the object, its namespace or its kind does not exist
    ├── AlreadyExists    409: create found an object of that name
    ├── Conflict         409: another write came first, or the uid differs; read and decide again
    ├── Expired          410: the version or the page is too old; list again
    ├── Invalid          422: the server rejects the fields in `causes`; a person or our code must
    │                    change
    ├── Forbidden        403: a permission, a quota or a terminating namespace; a person must act
    ├── Throttled        429: wait `retry_after_s`, send again
    ├── Unavailable      5xx, 401, 408, no connection, no response in time; wait, send again
    └── Rejected         any other rejection; the same request will be rejected again

Status and reason follow the API conventions ("Response Status Kind"). Bodies may be plain text, so
Content-Type is checked first.
"""

import re
from typing import Any, NamedTuple

import msgspec

from aimschema.resources import Resource

TYPED_PATCH = "failed to create typed patch object"


class Cause(NamedTuple):
    """One entry of a Status' `details.causes`."""

    field: str
    reason: str
    message: str


class KubeError(Exception):
    """`status` is the HTTP status, 0 without an answer. `retry_after_s` is how long the server
    asks to wait, None if it does not say."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.causes = causes
        self.retry_after_s = retry_after_s


class NotFound(KubeError): ...


class AlreadyExists(KubeError): ...


class Conflict(KubeError): ...


class Expired(KubeError): ...


class Invalid(KubeError): ...


class Forbidden(KubeError): ...


class Throttled(KubeError): ...


class Unavailable(KubeError): ...


class Rejected(KubeError): ...


class NotConfigured(Exception):
    """No kubeconfig and no service account: there is no cluster to talk to."""


_BY_STATUS: dict[int, type[KubeError]] = {
    401: Unavailable,  # a token being rotated; a wrong one shows by never going away
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: Expired,
    422: Invalid,
    429: Throttled,
}


def from_response(
    status: int, content_type: str, body: bytes, retry_after: str | None = None
) -> KubeError:
    """The error for an HTTP answer that is not a success."""
    if content_type.partition(";")[0].strip().lower() == "application/json":
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            document = None
        if isinstance(document, dict) and document.get("kind") == "Status":
            return from_status({**document, "code": status}, retry_after)
    text = body[:500].decode(errors="replace").strip() or "no message"
    return from_status({"code": status, "message": text}, retry_after)


def from_status(document: dict[str, Any], retry_after: str | None = None) -> KubeError:
    """The error for a Status object: the body of an answer, or the object of an ERROR event in a
    watch."""
    code, reason = document.get("code"), str(document.get("reason") or "")
    status = code if isinstance(code, int) else 0
    message = str(document.get("message") or reason or "no message")
    details = document.get("details")
    details = details if isinstance(details, dict) else {}
    listed = details.get("causes")
    causes = tuple(
        Cause(
            str(cause.get("field", "")), str(cause.get("reason", "")), str(cause.get("message", ""))
        )
        for cause in (listed if isinstance(listed, list) else ())
        if isinstance(cause, dict)
    )
    after_s = _seconds(retry_after) or _seconds(details.get("retryAfterSeconds"))
    return _class(status, reason, message)(
        message, status=status, reason=reason, causes=causes, retry_after_s=after_s
    )


_NO_RIGHT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" in API group'
    r' "(?P<group>[^"]*)"'
)
"""How the RBAC authorizer words it (k8s.io/apiserver, responsewriters.ForbiddenMessage)."""


_WEBHOOK = re.compile(
    r"failed (to call|calling) webhook|admission webhook \S+ denied the request|conversion webhook"
    r" for .+ failed"
)
"""How the API server words it (k8s.io/apiserver, plugin/webhook/errors and
admission/plugin/webhook/errors; apiextensions, conversion)."""


def is_from_webhook(message: str) -> bool:
    """Whether an API server's message is about a webhook that denied the request or could not be
    called, for any code."""
    return _WEBHOOK.search(message) is not None


def describe_error(error: KubeError) -> str:
    """What the server says, for a person: where a right is missing, which to grant; and the
    fields at fault that the message does not name."""
    missing = _NO_RIGHT.search(error.message) if isinstance(error, Forbidden) else None
    if missing is not None:
        resource = ".".join(part for part in (missing["resource"], missing["group"]) if part)
        return f"{error.message}; grant {missing['user']} the verb {missing['verb']} on {resource}"
    fields = [
        f"{cause.field}: {cause.message}"
        for cause in error.causes
        if cause.field and cause.field not in error.message
    ]
    return "; ".join([error.message, *fields])


def with_missing_permission(
    error: Forbidden, who: str, resource: Resource, namespace: str | None
) -> Forbidden:
    """The rejection of an apply, with the permission that is missing.

    An apply that would make an object needs `create` beside `patch`. An API server that rejects for
    that reason ends its message at "is forbidden:" (withAuthorization in k8s.io/apiserver); all
    other rejections say what they are about.
    """
    if not error.message.rstrip().endswith(" is forbidden:"):
        return error
    where = "at the cluster scope" if namespace is None else f'in the namespace "{namespace}"'
    sentence = (
        f'{who} may patch, but cannot create resource "{resource.plural}" in API group'
        f' "{resource.group}" {where}'
    )
    return Forbidden(
        f"{error.message.rstrip()} {sentence}", status=error.status, reason=error.reason
    )


def _class(status: int, reason: str, message: str) -> type[KubeError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if status >= 500 or status == 0:
        # A schema error of an apply comes as a 500 and is as permanent as a 422.
        return Rejected if TYPED_PATCH in message else Unavailable
    return _BY_STATUS.get(status, Rejected)


def _seconds(text: object) -> float | None:
    """Retry-After in seconds (RFC 9110, 10.2.3). The date form is not used by Kubernetes and
    counts as none."""
    try:
        seconds = float(str(text))
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None
