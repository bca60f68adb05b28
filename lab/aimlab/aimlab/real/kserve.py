"""KServe's own controller, with its kinds, its settings and its webhooks.

Its webhooks are called by URL on loopback, with a certificate made here.
"""

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import yaml

from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, until_answers
from aimkube import AlreadyExists, Cluster
from aimlab.certificates import Certificate, make_certificate
from aimlab.kinds import Body
from aimlab.lab import define
from aimlab.real.parts import OLD_KSERVE, KServe
from aimschema.resources import CONFIG_MAP, CRD, NAMESPACE, Resource

HOST = "127.0.0.1"
NAME = "kserve"
GROUP = "admissionregistration.k8s.io"
HOOKS = {
    kind: Resource(kind, GROUP, "v1", f"{kind.lower()}s", namespaced=False)
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
}


@asynccontextmanager
async def kserve(
    children: Children,
    cluster: Cluster,
    kubeconfig: Path,
    part: KServe,
) -> AsyncIterator[None]:
    """Runs it for as long as the block lasts. Raises RuntimeError where it does not come up."""
    folder = kubeconfig.parent / NAME
    certificate = make_certificate(folder / "k8s-webhook-server" / "serving-certs", "tls")
    port, metrics_port, health_port = free_ports(3)
    await define(cluster, list(crds_in(part.source / "config/crd/full")))
    with suppress(AlreadyExists):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}}
        await cluster.create(namespace, resource=NAMESPACE)
    await cluster.create(settings(part), resource=CONFIG_MAP)
    command = [
        str(part.program),
        f"--kubeconfig={kubeconfig}",
        f"--webhook-port={port}",
        f"--metrics-addr={HOST}:{metrics_port}",
        f"--health-probe-addr={HOST}:{health_port}",
    ]
    process = await children.start(NAME, command, env={"TMPDIR": str(folder)})
    what = f"KServe's controller; its log is {children.log_of(NAME)}"
    await until_answers(process, f"http://{HOST}:{health_port}/readyz", what)
    for body in webhooks(part, f"https://{HOST}:{port}", certificate):
        await cluster.create(body, resource=HOOKS[body["kind"]])
    yield


def crds_in(folder: Path) -> Iterator[Body]:
    """The definitions in a folder of manifests, which may have others beside."""
    for path in sorted(folder.glob("*.yaml")):
        for body in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if body and body["kind"] == CRD.kind:
                yield body


def settings(part: KServe) -> Body:
    """The project's own ConfigMap inferenceservice-config; but for an old version, for Standard
    mode and the Gateway API."""
    text = (part.source / "config/configmap/inferenceservice.yaml").read_text()
    body: Body = yaml.load(text, yaml.CSafeLoader)
    body["metadata"] |= {"namespace": NAME}
    if part.version == OLD_KSERVE:
        return body
    changes = {
        "deploy": {"defaultDeploymentMode": "Standard"},
        "ingress": {"enableGatewayApi": True},
    }
    for key, changed in changes.items():
        existing = msgspec.json.decode(body["data"][key])
        body["data"][key] = msgspec.json.encode(existing | changed).decode()
    return body


def webhooks(part: KServe, url: str, certificate: Certificate) -> Iterator[Body]:
    """The project's own webhook configurations, with a URL in place of a Service."""
    bundle = base64.b64encode(certificate.certificate.read_bytes()).decode()
    manifests = (part.source / "config/webhook/manifests.yaml").read_text()
    for body in yaml.load_all(manifests, yaml.CSafeLoader):
        body["metadata"].pop("creationTimestamp", None)
        for hook in body["webhooks"]:
            path = hook["clientConfig"]["service"]["path"]
            hook["clientConfig"] = {"url": url + path, "caBundle": bundle}
        yield body
