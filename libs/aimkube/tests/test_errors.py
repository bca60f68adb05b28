"""Answers of a real API server, and of what stands before one, to the error that says what to
do."""

import json
from typing import Any

import pytest

from aimkube import errors
from aimschema.resources import JOB

JSON = "application/json"


def status(code: int, reason: str = "", message: str = "m", **more: Any) -> bytes:
    return json.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
            **more,
        }
    ).encode()


RIGHT = (
    'jobs.batch "j" is forbidden: User "system:serviceaccount:aim:cacher" cannot patch resource'
    ' "jobs" in API group "batch" in the namespace "ml"'
)
CORE = (
    'configmaps "m" is forbidden: User "u" cannot get resource "configmaps" in API group "" in the'
    ' namespace "ml"'
)
QUOTA = (
    'jobs.batch "j" is forbidden: exceeded quota: gpus, requested: count/jobs.batch=1, used:'
    " count/jobs.batch=3, limited: count/jobs.batch=3"
)
WEBHOOK = 'admission webhook "policy.example.org" denied the request: no models on Fridays'
NAMED = (
    'ModelCache.aim.silogen.ai "c" is invalid: spec.size: Invalid value: "0": must be greater'
    " than 0"
)


@pytest.mark.parametrize(
    ("code", "message", "causes", "described"),
    [
        pytest.param(
            403,
            RIGHT,
            [],
            f"{RIGHT}; grant system:serviceaccount:aim:cacher the verb patch on jobs.batch",
            id="no-right",
        ),
        pytest.param(
            403,
            CORE,
            [],
            f"{CORE}; grant u the verb get on configmaps",
            id="no-right-in-the-core-group",
        ),
        pytest.param(403, QUOTA, [], QUOTA, id="quota"),
        pytest.param(403, WEBHOOK, [], WEBHOOK, id="webhook"),
        pytest.param(
            422,
            NAMED,
            [{"field": "spec.size", "message": "Invalid value"}],
            NAMED,
            id="field-named-by-the-message",
        ),
        pytest.param(
            422,
            "invalid",
            [{"field": "spec.size", "message": "too small"}],
            "invalid; spec.size: too small",
            id="field-named-by-a-cause",
        ),
    ],
)
def test_an_error_is_described_for_people(
    code: int, message: str, causes: list[dict[str, str]], described: str
) -> None:
    assert (
        errors.describe_error(
            errors.from_response(code, JSON, status(code, "", message, details={"causes": causes}))
        )
        == described
    )


@pytest.mark.parametrize(
    ("code", "content_type", "body", "expected"),
    [
        pytest.param(404, JSON, status(404, "NotFound"), errors.NotFound, id="no-such-object"),
        pytest.param(
            404, "text/plain", b"404 page not found\n", errors.NotFound, id="no-such-kind"
        ),
        pytest.param(
            409,
            JSON,
            status(409, "AlreadyExists"),
            errors.AlreadyExists,
            id="create-of-what-exists",
        ),
        pytest.param(
            409, JSON, status(409, "Conflict"), errors.Conflict, id="version-or-uid-differs"
        ),
        pytest.param(410, JSON, status(410, "Expired"), errors.Expired, id="list-version-too-old"),
        pytest.param(422, JSON, status(422, "Invalid"), errors.Invalid, id="schema"),
        pytest.param(403, JSON, status(403, "Forbidden"), errors.Forbidden, id="rbac"),
        pytest.param(
            401, JSON, status(401, "Unauthorized"), errors.Unavailable, id="token-rotated"
        ),
        pytest.param(
            429,
            "text/plain",
            b"Too many requests, please try again later.\n",
            errors.Throttled,
            id="priority-and-fairness",
        ),
        pytest.param(
            500,
            JSON,
            status(500, "", "failed to create typed patch object (x; y): .spec.a: not declared"),
            errors.Rejected,
            id="typed-patch",
        ),
        pytest.param(
            500,
            JSON,
            status(500, "InternalError", "failed calling webhook"),
            errors.Unavailable,
            id="webhook-down",
        ),
        pytest.param(502, "text/html", b"<html>Bad Gateway</html>", errors.Unavailable, id="proxy"),
        pytest.param(504, JSON, status(504, "Timeout"), errors.Unavailable, id="server-timeout"),
        pytest.param(
            400,
            JSON,
            status(400, "BadRequest", "field label not supported: spec.model"),
            errors.Rejected,
            id="bad-selector",
        ),
        pytest.param(
            415, JSON, status(415, "UnsupportedMediaType"), errors.Rejected, id="content-type"
        ),
        pytest.param(
            404, JSON, b"404 page not found\n", errors.NotFound, id="text-that-claims-to-be-json"
        ),
        pytest.param(500, JSON, b"[1]", errors.Unavailable, id="json-that-is-no-status"),
        pytest.param(
            403,
            "Application/JSON; charset=UTF-8",
            status(403, "Forbidden", "m"),
            errors.Forbidden,
            id="content-type-in-capitals",
        ),
        pytest.param(
            500,
            JSON,
            b'{"kind": "Status", "code": null, "message": null, "details": null}',
            errors.Unavailable,
            id="nulls",
        ),
        pytest.param(500, JSON, b'{"kind": "Status", "code": 0}', errors.Unavailable, id="code-0"),
        pytest.param(
            422,
            JSON,
            b'{"kind": "Status", "code": "422", "details": {"causes": ["a"]}}',
            errors.Invalid,
            id="other-types",
        ),
        pytest.param(
            422, JSON, b'{"kind": "Status", "details": ["a"]}', errors.Invalid, id="details-a-list"
        ),
        pytest.param(
            413, JSON, status(413, "RequestEntityTooLarge"), errors.Rejected, id="too-large"
        ),
        pytest.param(
            413, "text/html", b"<html>413</html>", errors.Rejected, id="too-large-for-a-proxy"
        ),
        pytest.param(
            504, "text/plain", b"upstream timed out", errors.Unavailable, id="gateway-timeout"
        ),
    ],
)
def test_a_response_becomes_the_error_named_by_its_remedy(
    code: int, content_type: str, body: bytes, expected: type[errors.KubeError]
) -> None:
    error = errors.from_response(code, content_type, body)
    assert type(error) is expected
    assert error.status == code


def test_the_server_s_reason_message_and_causes_are_kept() -> None:
    causes = [
        {
            "field": "spec.model",
            "reason": "FieldValueInvalid",
            "message": "Invalid value: model is immutable",
        }
    ]
    error = errors.from_response(
        422, JSON, status(422, "Invalid", "Widget is invalid", details={"causes": causes})
    )
    assert (error.reason, error.message) == ("Invalid", "Widget is invalid")
    assert error.causes == (
        errors.Cause("spec.model", "FieldValueInvalid", "Invalid value: model is immutable"),
    )


@pytest.mark.parametrize(
    ("code", "message", "by_webhook"),
    [
        pytest.param(
            500,
            'Internal error occurred: failed calling webhook "v": no endpoints available',
            True,
            id="not-to-be-called",
        ),
        pytest.param(
            500,
            "conversion webhook for serving.kserve.io/v1beta1, Kind=InferenceService failed: Post",
            True,
            id="conversion",
        ),
        pytest.param(400, WEBHOOK, True, id="denied-with-another-code"),
        pytest.param(
            403,
            'admission webhook "v" denied the request without explanation',
            True,
            id="denied-without-a-word",
        ),
        pytest.param(403, QUOTA, False, id="quota"),
        pytest.param(
            422,
            "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            False,
            id="policy-of-the-server-itself",
        ),
    ],
)
def test_what_a_webhook_did_is_known(code: int, message: str, *, by_webhook: bool) -> None:
    assert (
        errors.is_from_webhook(errors.from_response(code, JSON, status(code, "", message)).message)
        is by_webhook
    )


@pytest.mark.parametrize(
    ("header", "details", "expected_s"),
    [
        pytest.param("7", {}, 7.0, id="header"),
        pytest.param(None, {"retryAfterSeconds": 3}, 3.0, id="in-the-status"),
        pytest.param("7", {"retryAfterSeconds": 3}, 7.0, id="header-wins"),
        pytest.param(
            "Wed, 21 Oct 2026 07:28:00 GMT", {}, None, id="date-is-not-used-by-kubernetes"
        ),
        pytest.param("-1", {}, None, id="nonsense"),
        pytest.param("nan", {}, None, id="not-a-number"),
        pytest.param(None, {}, None, id="not-named"),
    ],
)
def test_how_long_the_server_asks_to_wait(
    header: str | None, details: dict[str, int], expected_s: float | None
) -> None:
    assert (
        errors.from_response(
            429, JSON, status(429, "TooManyRequests", details=details), header
        ).retry_after_s
        == expected_s
    )


@pytest.mark.parametrize(
    ("message", "namespace", "expected"),
    [
        pytest.param(
            'jobs.batch "j" is forbidden: ',
            "ml",
            'jobs.batch "j" is forbidden: aim-cacher may patch, but cannot create resource "jobs"'
            ' in API group "batch" in the namespace "ml"',
            id="not a word on what is missing",
        ),
        pytest.param(
            'jobs.batch "j" is forbidden: ',
            None,
            'jobs.batch "j" is forbidden: aim-cacher may patch, but cannot create resource "jobs"'
            ' in API group "batch" at the cluster scope',
            id="of all namespaces",
        ),
        pytest.param(
            'jobs.batch "j" is forbidden: exceeded quota: q',
            "ml",
            'jobs.batch "j" is forbidden: exceeded quota: q',
            id="quota",
        ),
        pytest.param(
            'jobs.batch "j" is forbidden: User "u" cannot patch resource "jobs"',
            "ml",
            'jobs.batch "j" is forbidden: User "u" cannot patch resource "jobs"',
            id="the server names it",
        ),
    ],
)
def test_a_forbidden_apply_names_the_missing_permission(
    message: str, namespace: str | None, expected: str
) -> None:
    rejection = errors.Forbidden(message, status=403, reason="Forbidden")
    named = errors.with_missing_permission(rejection, "aim-cacher", JOB, namespace)
    assert (named.message, named.status, named.reason) == (expected, 403, "Forbidden")


@pytest.mark.parametrize(
    "document",
    [
        {"code": "abc"},
        {"code": {}},
        {"details": "x"},
        {"details": {"causes": "x"}},
        {"details": {"causes": ["x", None, {"field": 7}]}},
        {"details": {"retryAfterSeconds": []}},
        {"message": {"a": 1}, "reason": ["x"]},
    ],
)
def test_a_status_of_any_shape_is_an_error(document: dict[str, Any]) -> None:
    body = json.dumps({"kind": "Status", **document}).encode()
    assert isinstance(errors.from_response(503, "application/json", body), errors.KubeError)


def test_an_answer_nested_without_end_is_an_error() -> None:
    assert errors.from_response(503, "application/json", b'{"a":' * 5000).status == 503
