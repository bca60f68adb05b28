"""The errors of the Kubernetes API: HTTP code, `reason`, `details`, as metav1.Status bodies.

ApiError            an error response; the functions below make the usual ones
"""

from typing import NamedTuple

from aimlab.apiserver.objects import Obj
from aimschema.resources import qualified_name


class Cause(NamedTuple):
    """One entry of `details.causes`: the field, the kind of mistake, the message."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """An answer that is not a success. `reason` may be empty, as for internal errors."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def body(self) -> Obj:
        """The metav1.Status of the error."""
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return status


def object_details(group: str, kind: str, name: str) -> Obj:
    """`details` that name an object; an empty name and the core group are left out."""
    return {**({"name": name} if name else {}), **({"group": group} if group else {}), "kind": kind}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def not_found(group: str, plural: str, name: str) -> ApiError:
    return ApiError(
        404,
        "NotFound",
        f'{qualified_name(plural, group)} "{name}" not found',
        object_details(group, plural, name),
    )


def already_exists(group: str, plural: str, name: str, *, deleting: bool) -> ApiError:
    message = f'{qualified_name(plural, group)} "{name}" already exists'
    return ApiError(
        409,
        "AlreadyExists",
        f"object is being deleted: {message}" if deleting else message,
        object_details(group, plural, name),
    )


def conflict(group: str, kind: str, name: str, why: str) -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified_name(kind, group)} "{name}": {why}',
        object_details(group, kind, name),
    )


def stale(group: str, plural: str, name: str) -> ApiError:
    why = (
        "the object has been modified; please apply your changes to the latest version and try"
        " again"
    )
    return conflict(group, plural, name, why)


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> ApiError:
    """422 with one cause each. The message has repeated causes once; the list has them all."""
    messages = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = messages[0] if len(messages) == 1 else f"[{', '.join(messages)}]"
    details = object_details(group, kind, name) | {
        "causes": [cause_entry(cause) for cause in causes]
    }
    return ApiError(
        422, "Invalid", f'{qualified_name(kind, group)} "{name}" is invalid: {text}', details
    )


def cause_entry(cause: Cause) -> Obj:
    """A cause as an entry of `details.causes`."""
    return {"reason": cause.reason, "message": cause.message, "field": cause.field}


def expired_error(message: str) -> ApiError:
    return ApiError(410, "Expired", message)
