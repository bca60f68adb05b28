"""Admission webhooks, as the objects of group admissionregistration.k8s.io configure them: asked
before a write, by its outcome on trial.

By URL they are asked; by Service they never answer, since nothing here forwards to Services: a
configuration that names one is a webhook that is down. `failurePolicy: Ignore` lets the write
through all the same. Mutating webhooks may deny, what they would change is left out. Not known:
matchConditions.
"""

import base64
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import aiohttp

from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Json, Obj, dig
from aimlab.apiserver.selectors import matches

GROUP = "admissionregistration.k8s.io"
CONFIGURATIONS = (
    (GROUP, "mutatingwebhookconfigurations"),
    (GROUP, "validatingwebhookconfigurations"),
)
TIMEOUT_S = 10


@dataclass(frozen=True)
class Call:
    """A write that webhooks may be asked about. `outcome` gives the object as it would be
    stored, None for a deletion; it raises ApiError."""

    resource: Resource
    subresource: str
    operation: str
    namespace: str
    name: str
    outcome: Callable[[], Obj | None]


async def consult(http: aiohttp.ClientSession, cluster: Cluster, call: Call) -> None:
    """ApiError where a webhook denies the write (its own code), or does not answer (500)."""
    found = [] if call.resource.group == GROUP else list(_matching_webhooks(cluster, call))
    if not found:
        return
    obj, old = call.outcome(), _stored_object(cluster, call)
    for webhook in found:
        if not _selects(cluster, webhook, obj or old or {}, call.namespace):
            continue
        try:
            answer = await _request_review(http, webhook, call, obj, old)
        except _SilentError as error:
            if webhook.get("failurePolicy") == "Ignore":
                continue
            why = f'failed calling webhook "{webhook["name"]}": failed to call webhook: {error}'
            text = f"Internal error occurred: {why}"
            raise ApiError(500, "InternalError", text, {"causes": [{"message": why}]}) from None
        if not answer.get("allowed"):
            raise _denied_error(webhook["name"], answer.get("status") or {})


class _SilentError(Exception):
    """No answer; the message is that of the API server's client."""


def _denied_error(name: str, status: Obj) -> ApiError:
    text = f'admission webhook "{name}" denied the request'
    if status.get("message"):
        text += f": {status['message']}"
    code = int(status.get("code") or 400)
    return ApiError(code, str(status.get("reason") or ("Forbidden" if code == 403 else "")), text)


def _matching_webhooks(cluster: Cluster, call: Call) -> Iterator[Obj]:
    for collection in CONFIGURATIONS:
        for entry in cluster.store.collections[collection].entries(None):
            for webhook in entry.obj.get("webhooks") or []:
                if any(fits(rule, call) for rule in webhook.get("rules") or []):
                    yield webhook


def fits(rule: Obj, call: Call) -> bool:
    plural = (
        f"{call.resource.plural}/{call.subresource}" if call.subresource else call.resource.plural
    )
    wildcard = f"{call.resource.plural}/*" if call.subresource else "*"
    resources, wishes = rule.get("resources") or [], rule.get("operations") or []
    return (
        bool({call.resource.group, "*"} & set(rule.get("apiGroups") or []))
        and bool({call.resource.version, "*"} & set(rule.get("apiVersions") or []))
        and bool({plural, wildcard, "*/*"} & set(resources))
        and bool({call.operation, "*"} & set(wishes))
    )


def _selects(cluster: Cluster, webhook: Obj, obj: Obj, namespace: str) -> bool:
    if not matches(webhook.get("objectSelector") or {}, dig(obj, "metadata", "labels") or {}):
        return False
    labels = dig(cluster.namespace(namespace), "metadata", "labels") if namespace else {}
    return matches(webhook.get("namespaceSelector") or {}, labels or {})


def _stored_object(cluster: Cluster, call: Call) -> Obj | None:
    entry = cluster.store.collections[call.resource.storage].get(call.namespace, call.name)
    return call.resource.view(entry.obj) if entry else None


async def _request_review(
    http: aiohttp.ClientSession, webhook: Obj, call: Call, obj: Obj | None, old: Obj | None
) -> Obj:
    """The response of the review. _SilentError without one."""
    client = webhook.get("clientConfig") or {}
    limit_s = int(webhook.get("timeoutSeconds") or TIMEOUT_S)
    service = client.get("service")
    if service:
        raise _SilentError(_unreachable(service, limit_s))
    url = f"{client.get('url')}?timeout={limit_s}s"
    try:
        timeout = aiohttp.ClientTimeout(total=limit_s)
        review = _review(call, obj, old)
        async with http.post(url, json=review, ssl=_trust(client), timeout=timeout) as answer:
            body = await answer.json(content_type=None)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise _SilentError(f'Post "{url}": {error}') from error
    return dig(body, "response") or {}


def _unreachable(service: Obj, limit_s: int) -> str:
    name, port = service.get("name"), service.get("port", 443)
    host = f"https://{name}.{service.get('namespace')}.svc:{port}"
    return (
        f'Post "{host}{service.get("path", "/")}?timeout={limit_s}s": no endpoints available for'
        f' service "{name}"'
    )


def _trust(client: Obj) -> ssl.SSLContext | bool:
    bundle = client.get("caBundle")
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode()) if bundle else True


def _review(call: Call, obj: Obj | None, old: Obj | None) -> Json:
    resource = call.resource
    request = {
        "uid": str(uuid4()),
        "kind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "resource": {
            "group": resource.group,
            "version": resource.version,
            "resource": resource.plural,
        },
        "subResource": call.subresource,
        "operation": call.operation,
        "namespace": call.namespace,
        "name": call.name,
        "object": obj,
        "oldObject": None if call.operation == "CREATE" else old,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
