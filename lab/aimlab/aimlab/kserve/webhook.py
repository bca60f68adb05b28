"""KServe's validating webhook: served over https on loopback, and registered with the API
server."""

import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from aimkube import Cluster, KubeError, NotFound
from aimlab.certificates import Certificate, make_certificate
from aimlab.kinds import Body
from aimlab.kserve.modes import Version
from aimschema.resources import INFERENCE_SERVICE, Resource

CONFIGURATION = Resource(
    "ValidatingWebhookConfiguration",
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    namespaced=False,
)
NAME = "inferenceservice.serving.kserve.io"
WEBHOOK = "inferenceservice.kserve-webhook-server.validator"
PATH = "/validate-serving-kserve-io-v1beta1-inferenceservice"


@asynccontextmanager
async def webhook(cluster: Cluster, version: Version, folder: Path) -> AsyncIterator[None]:
    """Answers for as long as the block lasts; afterwards it is no longer registered.

    A process that is killed leaves a webhook behind that is down, as a real one does.
    """

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(review(await request.json(), version))

    app = web.Application()
    app.add_routes([web.post(PATH, answer)])
    runner = web.AppRunner(app, handle_signals=False, access_log=None)
    await runner.setup()
    try:
        certificate = make_certificate(folder, "webhook")
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.context())
        await site.start()
        await _remove(cluster)
        made = configuration(f"https://127.0.0.1:{runner.addresses[0][1]}{PATH}", certificate)
        await cluster.create(made, resource=CONFIGURATION)
        yield
    finally:
        with contextlib.suppress(KubeError):
            await _remove(cluster)
        await runner.cleanup()


async def _remove(cluster: Cluster) -> None:
    with contextlib.suppress(NotFound):
        await cluster.delete(CONFIGURATION, None, NAME)


def configuration(url: str, certificate: Certificate) -> Body:
    rule = {
        "apiGroups": [INFERENCE_SERVICE.group],
        "apiVersions": [INFERENCE_SERVICE.version],
        "operations": ["CREATE", "UPDATE"],
        "resources": [INFERENCE_SERVICE.plural],
    }
    trusted = base64.b64encode(certificate.certificate.read_bytes()).decode()
    webhook_entry: Body = {"name": WEBHOOK, "clientConfig": {"url": url, "caBundle": trusted}}
    webhook_entry |= {"rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"]}
    webhook_entry |= {"failurePolicy": "Fail"}
    head = {"apiVersion": CONFIGURATION.api_version, "kind": CONFIGURATION.kind}
    return head | {"metadata": {"name": NAME}, "webhooks": [webhook_entry]}


def review(body: Body, version: Version) -> Body:
    """The AdmissionReview that answers."""
    request = body["request"]
    why = version.denial(request["object"], request.get("oldObject"))
    response: Body = {"uid": request["uid"], "allowed": why is None}
    if why is not None:
        response["status"] = {"code": 403, "reason": "Forbidden", "message": why}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "response": response}
