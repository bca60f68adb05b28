"""Writes of the services' accounts, each with the object before and after it: those that the
policies admit, and those that they reject."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from aim_cacher.settings import CacherSettings
from aimctl.manifests import documents
from aimlab.testing.charts import NAMESPACE
from aimschema.labels import ANNOTATION_EVICTING, COMPONENT, MANAGED_BY

ROOT = Path(__file__).parents[4]
CHART = ROOT / "deploy" / "charts" / "aim"
CACHER = "aim-cacher"
DEPLOYER = "aim-deployer"
DISCOVERY = "aim-discovery"
ROUTER = "aim-router"
Body = dict[str, Any]
Edit = Callable[[Body], object]


@dataclass(frozen=True)
class Case:
    """A write of `account`: a creation without `before`, else an update or, without `after`, a
    deletion."""

    name: str
    account: str
    after: Body | None
    before: Body | None = None

    @property
    def body(self) -> Body:
        body = self.before if self.after is None else self.after
        assert body is not None
        return body

    @property
    def operation(self) -> str:
        if self.after is None:
            return "DELETE"
        return "CREATE" if self.before is None else "UPDATE"


@cache
def golden_file(service: str, name: str) -> Body:
    folder = ROOT / "services" / service / "tests" / "golden"
    (body,) = documents((folder / f"{name}.yaml").read_text())
    return cast(Body, body)


def golden(service: str, name: str) -> Body:
    body = copy.deepcopy(golden_file(service, name))
    if service == "cacher" and body["kind"] == "Job":
        container_of(body)["image"] = CacherSettings.model_fields["downloader_image"].default
    return body


def pod_of(body: Body) -> Body:
    spec: Body = (
        body["spec"]["template"]["spec"] if body["kind"] == "Job" else body["spec"]["predictor"]
    )
    return spec


def container_of(body: Body) -> Body:
    container: Body = pod_of(body)["containers"][0]
    return container


RENDERED = [
    (service, file.stem)
    for service in ("cacher", "deployer", "discovery", "router")
    for file in sorted((ROOT / "services" / service / "tests" / "golden").glob("*.yaml"))
]


def defaulted(body: Body) -> None:
    """What an API server fills in (core/v1 and batch/v1 defaults)."""
    pod_of(body).update(
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        terminationGracePeriodSeconds=30,
    )
    more = {
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    container_of(body).update(more)


def on_openshift(body: Body) -> None:
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        pod_of(body)["securityContext"].pop(name, None)


def with_pull_secrets(body: Body) -> None:
    pod_of(body)["imagePullSecrets"] = [{"name": "registry"}]


def with_certificates(body: Body) -> None:
    pod_of(body).setdefault("volumes", []).append({"name": "ca", "configMap": {"name": "c-ca"}})


def with_options_of_a_config(body: Body) -> None:
    """As the API server stores it: the old name of the account beside the new one."""
    pod_of(body).update(serviceAccountName="downloads", serviceAccount="downloads")
    bundle = {"name": "corporate", "items": [{"key": "bundle.pem", "path": "ca.crt"}]}
    pod_of(body).setdefault("volumes", []).append({"name": "ca", "configMap": bundle})


def without_env_or_resources(body: Body) -> None:
    container_of(body).pop("env", None)
    container_of(body).pop("resources", None)


DIGEST = f"sha256:{'0a' * 32}"
JOBS = [("cacher", "download-job"), ("cacher", "size-job"), ("discovery", "discovery-job")]
PREDICTORS = [(service, name) for service, name in RENDERED if name.startswith("inference-service")]


# --- attacks: what a stolen account would try


def pod(**fields: Any) -> Edit:
    return lambda body: pod_of(body).update(fields)


def container(**fields: Any) -> Edit:
    return lambda body: container_of(body).update(fields)


def security(**fields: Any) -> Edit:
    return lambda body: container_of(body).setdefault("securityContext", {}).update(fields)


def pod_security(**fields: Any) -> Edit:
    return lambda body: pod_of(body).setdefault("securityContext", {}).update(fields)


def volume(**source: Any) -> Edit:
    def edit(body: Body) -> None:
        pod_of(body)["volumes"] = [*pod_of(body).get("volumes", []), {"name": "more", **source}]

    return edit


def second_container(body: Body) -> None:
    pod_of(body)["containers"].append({"name": "more", "image": "evil.example/x"})


def namespace(name: str) -> Edit:
    return lambda body: body["metadata"].update(namespace=name)


def named(name: str) -> Edit:
    return lambda body: body["metadata"].update(name=name)


def claim_field(field: str, value: object) -> Edit:
    return lambda body: body["spec"].update({field: value})


SIDE = [{"name": "more", "image": "evil.example/x"}]
EVERYWHERE: dict[str, Edit] = {
    "kube-system": namespace("kube-system"),
    "kube-public": namespace("kube-public"),
    "own-namespace": namespace(NAMESPACE),
    "host-path": volume(hostPath={"path": "/"}),
    "secret-volume": volume(secret={"secretName": "tls"}),
    "projected-token": volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
    "downward": volume(downwardAPI={"items": []}),
    "other-claim": volume(persistentVolumeClaim={"claimName": "database"}),
    "other-config": volume(configMap={"name": "kube-root-ca.crt"}),
    "inline-csi": volume(csi={"driver": "secrets-store.csi.k8s.io"}),
    "nfs": volume(nfs={"server": "10.0.0.1", "path": "/"}),
    "ephemeral": volume(ephemeral={"volumeClaimTemplate": {}}),
    "image-volume": volume(image={"reference": "evil.example/x"}),
    "host-network": pod(hostNetwork=True),
    "host-pid": pod(hostPID=True),
    "host-ipc": pod(hostIPC=True),
    "host-users": pod(hostUsers=True),
    "host-aliases": pod(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["hub"]}]),
    "node-name": pod(nodeName="control-plane"),
    "service-account": pod(serviceAccountName="admin"),
    "old-service-account": pod(serviceAccount="admin"),
    "token": pod(automountServiceAccountToken=True),
    "init-container": pod(initContainers=SIDE),
    "ephemeral-container": pod(ephemeralContainers=SIDE),
    "second-container": second_container,
    "no-container": pod(containers=[]),
    "resource-claims": pod(resourceClaims=[{"name": "gpu"}]),
    "shared-processes": pod(shareProcessNamespace=True),
    "dns": pod(dnsConfig={"nameservers": ["10.0.0.1"]}),
    "a-field-of-tomorrow": pod(hostEverything=True),
    "another-name": container(name="other"),
    "command": container(command=["sh", "-c", "env"]),
    "env-from": container(envFrom=[{"secretRef": {"name": "tls"}}]),
    "lifecycle": container(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
    "host-port": container(ports=[{"containerPort": 1, "hostPort": 1}]),
    "block-device": container(volumeDevices=[{"name": "cache", "devicePath": "/dev/x"}]),
    "privileged": security(privileged=True),
    "capability": security(capabilities={"add": ["SYS_ADMIN"], "drop": ["ALL"]}),
    "proc-mount": security(procMount="Unmasked"),
    "selinux": security(seLinuxOptions={"type": "spc_t"}),
    "host-process": security(windowsOptions={"hostProcess": True}),
    "sysctls": pod_security(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "pod-selinux": pod_security(seLinuxOptions={"type": "spc_t"}),
}


def added_by_others(body: Body) -> None:
    """What a person or a webhook may have put into an InferenceService."""
    host_path = {"name": "x", "hostPath": {"path": "/"}}
    pod_of(body).update(nodeName="node-1", initContainers=SIDE, volumes=[host_path])
    body["spec"]["transformer"] = {"containers": SIDE}


CHOSEN_BY_USERS = {
    "cacher": ("service-account", "old-service-account"),
    "deployer": ("service-account",),
}
"""A config may name the account of download pods, a service or config that of model servers."""
OF_JOBS: dict[str, Edit] = {
    "escalation": security(allowPrivilegeEscalation=True),
    "kept-capabilities": security(capabilities={"drop": []}),
    "no-security": container(securityContext={}),
    "no-pod-security": pod(securityContext={}),
    "root": pod_security(runAsUser=0),
    "root-of-the-container": security(runAsUser=0),
    "may-be-root": pod_security(runAsNonRoot=False),
    "unconfined": pod_security(seccompProfile={"type": "Unconfined"}),
    "no-word-on-the-token": lambda body: pod_of(body).pop("automountServiceAccountToken"),
    "probe": container(livenessProbe={"exec": {"command": ["sh"]}}),
    "null": pod(securityContext=None),
    "no-template": lambda body: body["spec"].pop("template"),
}
OF_DISCOVERY: dict[str, Edit] = {
    "secret-in-env": container(
        env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "tls", "key": "tls.key"}}}]
    ),
    "config-in-env": container(
        env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]
    ),
    "field-in-env": container(
        env=[{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    ),
    "empty-dir": volume(emptyDir={}),
    "cache-volume": volume(persistentVolumeClaim={"claimName": "c-cache"}),
}
OF_PREDICTORS: dict[str, Edit] = {
    "transformer": lambda body: body["spec"].update(transformer={"containers": SIDE}),
    "explainer": lambda body: body["spec"].update(explainer={"containers": SIDE}),
    "workers": pod(workerSpec={"containers": SIDE}),
    "logger": pod(logger={"url": "http://evil.example"}),
    "model": pod(model={"storageUri": "s3://evil"}),
    "no-predictor": lambda body: body["spec"].pop("predictor"),
}
ATTACKS = [
    *(
        (who, name, which, edit)
        for who, name in [*JOBS, ("deployer", "inference-service.version-2-cached")]
        for which, edit in EVERYWHERE.items()
        if which not in CHOSEN_BY_USERS.get(who, ())
    ),
    *((who, name, which, edit) for who, name in JOBS for which, edit in OF_JOBS.items()),
    *(("discovery", "discovery-job", which, edit) for which, edit in OF_DISCOVERY.items()),
    *(
        ("deployer", "inference-service.cached", which, edit)
        for which, edit in OF_PREDICTORS.items()
    ),
    ("cacher", "download-job", "image", container(image="evil.example/aim-downloader:0.1.0")),
    *(
        ("cacher", "size-job", f"image-{which}", container(image=image))
        for which, image in {
            "of-another-registry": "ghcr.io.evil.example/silogen/aim-downloader:0.1.0",
            "of-another-owner": "ghcr.io/evil/aim-downloader:0.1.0",
            "with-a-longer-name": "ghcr.io/silogen/aim-downloader-x:0.1.0",
            "below-it": "ghcr.io/silogen/aim-downloader/x:0.1.0",
            "with-a-port-for-a-tag": "ghcr.io/silogen/aim-downloader:5000/x",
            "where-the-dot-is-another-character": "ghcrxio/silogen/aim-downloader:0.1.0",
            "with-it-at-the-end": "evil.example/ghcr.io/silogen/aim-downloader:0.1.0",
            "of-another-service": "ghcr.io/silogen/aim-cacher:0.1.0",
            "empty": "",
        }.items()
    ),
]


def config_map(place: str, name: str, labels: Body | None) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": (
            {"namespace": place, "name": name} | ({} if labels is None else {"labels": labels})
        ),
    }


CONFIG_MAPS = [
    ("coredns", DISCOVERY, "kube-system", "coredns", {MANAGED_BY: "aim"}),
    ("name-of-ours-in-kube-system", DISCOVERY, "kube-system", "x-discovery", {MANAGED_BY: "aim"}),
    ("answer-in-our-namespace", DISCOVERY, NAMESPACE, "x-discovery", {MANAGED_BY: "aim"}),
    ("configuration-of-nats", DISCOVERY, NAMESPACE, "aim-nats-config", {MANAGED_BY: "aim"}),
    ("of-an-application", DISCOVERY, "ml", "app-settings", {MANAGED_BY: "aim"}),
    ("without-our-label", DISCOVERY, "ml", "x-discovery", {}),
    ("without-labels", DISCOVERY, "ml", "x-discovery", None),
    ("of-another-manager", DISCOVERY, "ml", "image-x", {MANAGED_BY: "helm"}),
    ("image-labels-by-the-cacher", CACHER, NAMESPACE, "image-x", {COMPONENT: "cache"}),
    ("of-an-application-by-the-cacher", CACHER, "ml", "app-settings", {COMPONENT: "cache"}),
    ("certificates-of-another-service", CACHER, "ml", "corporate-ca", {}),
    ("certificates-of-another-component", CACHER, "ml", "x-ca", {COMPONENT: "web"}),
]
"""Foreign objects: the case, the account, namespace, name and labels."""

VOLUME_FIELDS: Body = {
    "volumeName": "database",
    "selector": {"matchLabels": {"app": "database"}},
    "dataSource": {"kind": "PersistentVolumeClaim", "name": "database"},
    "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "database"},
}
WRITES = [
    (CACHER, "cacher", "cache-for"),
    (CACHER, "cacher", "claim-for"),
    (DEPLOYER, "deployer", "disruption-budget"),
    (DISCOVERY, "discovery", "result-config-map"),
    (ROUTER, "router", "route.plain"),
]
TAGS = [":0.0.1", ":0.2.0-rc.1", "", f"@{DIGEST}", f":0.1.0@{DIGEST}"]


def edited(service: str, name: str, edit: Edit) -> Body:
    body = golden(service, name)
    edit(body)
    return body


def admitted() -> Iterator[Case]:
    for service, name in RENDERED:
        who = f"aim-{service}"
        case = f"{service}-{name}"
        body = golden(service, name)
        yield Case(f"{case}-created", who, body)
        yield Case(f"{case}-updated", who, copy.deepcopy(body), body)
        yield Case(f"{case}-deleted", who, None, body)
    for service, name in JOBS:
        for variant in (defaulted, on_openshift, with_pull_secrets, without_env_or_resources):
            yield Case(
                f"{name}-{variant.__name__}", f"aim-{service}", edited(service, name, variant)
            )
    for name in ("download-job", "size-job"):
        yield Case(f"{name}-with-a-private-ca", CACHER, edited("cacher", name, with_certificates))
        options = edited("cacher", name, with_options_of_a_config)
        yield Case(f"{name}-with-options-of-a-config", CACHER, options)
    for tag in TAGS:  # the cacher of the former version works until the new one takes over
        image = container(image=f"ghcr.io/silogen/aim-downloader{tag}")
        yield Case(f"downloader{tag}", CACHER, edited("cacher", "download-job", image))
    for field, value in VOLUME_FIELDS.items():  # as the volume controller has set it
        claim = edited("cacher", "claim-for", claim_field(field, value))
        yield Case(f"claim-with-{field}-by-others", CACHER, copy.deepcopy(claim), claim)
    for service, name in PREDICTORS:  # a service must be stopped whatever others added
        before = edited(service, name, added_by_others)
        scaled = copy.deepcopy(before)
        pod_of(scaled).update(minReplicas=3, maxReplicas=3)
        yield Case(f"{name}-with-what-others-added", DEPLOYER, scaled, before)
    yield Case("mark-of-a-cache-removed", DEPLOYER, golden("cacher", "cache-for"), marked())
    image_labels = config_map(NAMESPACE, "image-m-0123abcd", {MANAGED_BY: "aim"})
    yield Case("image-labels-in-our-namespace", DISCOVERY, image_labels)
    yield Case("answer", DISCOVERY, config_map("ml", "x-discovery", {MANAGED_BY: "aim"}))
    yield Case("certificates", CACHER, config_map("ml", "x-ca", {COMPONENT: "cache"}))


def marked() -> Body:
    """A cache that is marked for eviction."""
    mark = {ANNOTATION_EVICTING: "2026-01-01T00:00:00Z"}
    return edited("cacher", "cache-for", lambda body: body["metadata"].update(annotations=mark))


def rejected() -> Iterator[Case]:
    larger = edited("cacher", "cache-for", claim_field("size", "9Ti"))
    yield Case("size-of-a-cache-changed-by-the-deployer", DEPLOYER, larger, marked())
    for service, name, attack, edit in ATTACKS:
        after, before = edited(service, name, edit), golden(service, name)
        before["metadata"]["namespace"] = after["metadata"]["namespace"]
        yield Case(f"{name}-{attack}", f"aim-{service}", after)
        yield Case(f"{name}-{attack}-updated", f"aim-{service}", after, before)
    for case, who, place, name, labels in CONFIG_MAPS:
        yield Case(f"configmap-{case}", who, config_map(place, name, labels))
    for who, name, labels in (
        (DISCOVERY, "x-discovery", {MANAGED_BY: "aim"}),
        (CACHER, "x-ca", {COMPONENT: "cache"}),
    ):
        after, before = config_map("ml", name, labels), config_map("ml", name, {})
        yield Case(f"label-of-ours-on-{name}", who, after, before)
    yield Case("claim-of-another-name", CACHER, edited("cacher", "claim-for", named("database")))
    for field, value in VOLUME_FIELDS.items():
        claim = edited("cacher", "claim-for", claim_field(field, value))
        yield Case(f"claim-with-{field}", CACHER, claim)
        yield Case(f"claim-with-{field}-updated", CACHER, claim, golden("cacher", "claim-for"))
    for place in ("kube-system", "kube-node-lease", NAMESPACE):
        for who, service, name in WRITES:
            body = edited(service, name, namespace(place))
            yield Case(f"{name}-written-in-{place}", who, body)
            yield Case(f"{name}-deleted-in-{place}", who, None, body)


ADMITTED, REJECTED = list(admitted()), list(rejected())
