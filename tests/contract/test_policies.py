"""The ValidatingAdmissionPolicies of the chart: they let through what the services render, and
nothing that a stolen account could gain by."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from aim_cacher.settings import CacherSettings
from aimlab.apiserver.access import account
from aimlab.apiserver.kinds import BUILTINS, Resource
from aimlab.apiserver.policies import Write, denials
from aimlab.testing.charts import NAMESPACE, render
from aimschema.labels import MANAGED_BY
from aimschema.resources import CACHE, INFERENCE_SERVICE, ROUTE

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "aim"
POLICY = "ValidatingAdmissionPolicy"
CACHER, DEPLOYER, DISCOVERY, ROUTER = "aim-cacher", "aim-deployer", "aim-discovery", "aim-router"
Body = dict[str, Any]
Edit = Callable[[Body], object]


@cache
def policies(*arguments: str) -> tuple[Body, ...]:
    return tuple(body for body in render(CHART, *arguments) if body["kind"] == POLICY)


CUSTOM = {resource.kind: resource for resource in (CACHE, INFERENCE_SERVICE, ROUTE)}


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


def denied(who: str, body: Body, old: Body | None = None, *, deleted: bool = False) -> list[str]:
    """What the policies have against a write of an account in aim-system, by policy."""
    metadata, operation = body["metadata"], "DELETE" if deleted else "UPDATE" if old else "CREATE"
    where = (metadata["namespace"], metadata["name"])
    write = Write(
        resource_of(body),
        operation,
        *where,
        account(NAMESPACE, who),
        None if deleted else body,
        body if deleted else old,
    )
    found = []
    for policy in policies():
        rules = policy["spec"]["matchConstraints"]["resourceRules"]
        if any(
            write.resource.plural in rule["resources"] and operation in rule["operations"]
            for rule in rules
        ):
            found += [
                f"{policy['metadata']['name']}: {each['message']}"
                for each in denials(policy, write)
            ]
    return found


def golden(service: str, name: str) -> Body:
    folder = ROOT / "services" / service / f"aim_{service}" / "tests" / "golden"
    body: Body = yaml.safe_load((folder / f"{name}.yaml").read_text())
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
    for file in sorted(
        (ROOT / "services" / service / f"aim_{service}" / "tests" / "golden").glob("*.yaml")
    )
]


@pytest.mark.parametrize(("service", "name"), RENDERED)
def test_what_a_service_renders_passes(service: str, name: str) -> None:
    body = golden(service, name)
    assert denied(f"aim-{service}", body) == []
    assert denied(f"aim-{service}", body, copy.deepcopy(body)) == []
    assert denied(f"aim-{service}", body, deleted=True) == []


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


def without_env_or_resources(body: Body) -> None:
    container_of(body).pop("env", None)
    container_of(body).pop("resources", None)


JOBS = [("cacher", "download-job"), ("cacher", "size-job"), ("discovery", "discovery-job")]
PREDICTORS = [(service, name) for service, name in RENDERED if name.startswith("inference-service")]


@pytest.mark.parametrize(
    "variant",
    [defaulted, on_openshift, with_pull_secrets, without_env_or_resources],
    ids=lambda edit: edit.__name__,
)
@pytest.mark.parametrize(("service", "name"), JOBS)
def test_a_job_under_other_settings_passes(service: str, name: str, variant: Edit) -> None:
    body = golden(service, name)
    variant(body)
    assert denied(f"aim-{service}", body) == []


@pytest.mark.parametrize("name", ["download-job", "size-job"])
def test_a_job_with_a_private_ca_passes(name: str) -> None:
    body = golden("cacher", name)
    with_certificates(body)
    assert denied(CACHER, body) == []


DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize("tag", [":0.0.1", ":0.2.0-rc.1", "", f"@{DIGEST}", f":0.1.0@{DIGEST}"])
def test_a_download_of_another_version_passes(tag: str) -> None:
    """The cacher of the former version works until the new one takes over."""
    body = golden("cacher", "download-job")
    container_of(body)["image"] = f"ghcr.io/silogen/aim-downloader{tag}"
    assert denied(CACHER, body) == []


@pytest.mark.parametrize(
    "chosen",
    [
        "mirror.example:5000/a.b/x",
        f"mirror.example:5000/a.b/x:1@{DIGEST}",
        "downloader",
        "downloader:1",
    ],
)
def test_another_downloader_image_passes_where_the_chart_names_it(chosen: str) -> None:
    body = golden("cacher", "download-job")
    found = policies(f"--set-string=services.cacher.env.AIM_DOWNLOADER_IMAGE={chosen}")
    jobs = next(policy for policy in found if policy["metadata"]["name"] == "aim-cacher-jobs")

    def passes(image: str) -> bool:
        container_of(body)["image"] = image
        write = Write(
            resource_of(body), "CREATE", "ml", "x", account(NAMESPACE, CACHER), body, None
        )
        return list(denials(jobs, write)) == []

    repository = chosen.partition("@")[0].removesuffix(":1")
    assert (passes(chosen), passes(f"{repository}:2")) == (True, True)
    assert not any(
        passes(other)
        for other in (
            f"{repository}:5000/x",
            f"x{repository}",
            "ghcr.io/silogen/aim-downloader:0.1.0",
        )
    )


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
            "where-the-dot-is-another-letter": "ghcrxio/silogen/aim-downloader:0.1.0",
            "with-it-at-the-end": "evil.example/ghcr.io/silogen/aim-downloader:0.1.0",
            "of-another-service": "ghcr.io/silogen/aim-cacher:0.1.0",
            "empty": "",
        }.items()
    ),
]


@pytest.mark.parametrize(
    ("service", "name", "edit"),
    [pytest.param(a[0], a[1], a[3], id=f"{a[1]}-{a[2]}") for a in ATTACKS],
)
def test_an_attack_is_rejected(service: str, name: str, edit: Edit) -> None:
    attack, before = golden(service, name), golden(service, name)
    edit(attack)
    assert denied(f"aim-{service}", attack) != []
    before["metadata"]["namespace"] = attack["metadata"]["namespace"]
    assert denied(f"aim-{service}", attack, before) != []


CONFIG_MAPS = [
    pytest.param(DISCOVERY, "kube-system", "coredns", {MANAGED_BY: "aim"}, id="coredns"),
    pytest.param(
        DISCOVERY,
        "kube-system",
        "x-discovery",
        {MANAGED_BY: "aim"},
        id="a-name-of-ours-in-kube-system",
    ),
    pytest.param(
        DISCOVERY, NAMESPACE, "x-discovery", {MANAGED_BY: "aim"}, id="an-answer-in-our-namespace"
    ),
    pytest.param(
        DISCOVERY, NAMESPACE, "aim-nats-config", {MANAGED_BY: "aim"}, id="configuration-of-nats"
    ),
    pytest.param(DISCOVERY, "ml", "app-settings", {MANAGED_BY: "aim"}, id="of-an-application"),
    pytest.param(DISCOVERY, "ml", "x-discovery", {}, id="without-our-label"),
    pytest.param(DISCOVERY, "ml", "x-discovery", None, id="without-labels"),
    pytest.param(DISCOVERY, "ml", "image-x", {MANAGED_BY: "helm"}, id="of-another-manager"),
    pytest.param(
        CACHER,
        NAMESPACE,
        "image-x",
        {"app.kubernetes.io/component": "cache"},
        id="image-labels-by-the-cacher",
    ),
    pytest.param(
        CACHER,
        "ml",
        "app-settings",
        {"app.kubernetes.io/component": "cache"},
        id="of-an-application-by-the-cacher",
    ),
    pytest.param(CACHER, "ml", "corporate-ca", {}, id="certificates-of-somebody-else"),
]


def config_map(place: str, name: str, labels: Body | None) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": (
            {"namespace": place, "name": name} | ({} if labels is None else {"labels": labels})
        ),
    }


@pytest.mark.parametrize(("who", "place", "name", "labels"), CONFIG_MAPS)
def test_a_config_map_of_somebody_else_is_not_written(
    who: str, place: str, name: str, labels: Body | None
) -> None:
    assert denied(who, config_map(place, name, labels)) != []


@pytest.mark.parametrize(("who", "name"), [(DISCOVERY, "x-discovery"), (CACHER, "x-ca")])
def test_a_label_of_ours_makes_nobodys_config_map_ours(who: str, name: str) -> None:
    ours = {MANAGED_BY: "aim", "app.kubernetes.io/component": "cache"}
    after = config_map("ml", name, ours)
    assert denied(who, after) == []
    assert denied(who, after, config_map("ml", name, {})) != []


@pytest.mark.parametrize("name", ["image-m-0123abcd"])
def test_discovery_keeps_what_an_image_says_in_our_namespace(name: str) -> None:
    assert denied(DISCOVERY, config_map(NAMESPACE, name, {MANAGED_BY: "aim"})) == []


@pytest.mark.parametrize("field", ["volumeName", "selector", "dataSource", "dataSourceRef"])
def test_the_cacher_takes_no_volume_of_somebody_else(field: str) -> None:
    claim, before = golden("cacher", "claim-for"), golden("cacher", "claim-for")
    claim["spec"][field] = "database"
    assert denied(CACHER, claim) != []
    assert denied(CACHER, claim, before) != []
    before["spec"][field] = "database"
    assert denied(CACHER, claim, before) == [], "as the volume controller has set it"


def test_the_cacher_makes_no_claim_of_another_name() -> None:
    claim = golden("cacher", "claim-for")
    claim["metadata"]["name"] = "database"
    assert denied(CACHER, claim) != []


@pytest.mark.parametrize("deleted", [False, True], ids=["written", "deleted"])
@pytest.mark.parametrize("place", ["kube-system", "kube-node-lease", NAMESPACE])
@pytest.mark.parametrize(
    ("who", "service", "name"),
    [
        (CACHER, "cacher", "cache-for"),
        (CACHER, "cacher", "claim-for"),
        (DEPLOYER, "deployer", "disruption-budget"),
        (DISCOVERY, "discovery", "result-config-map"),
        (ROUTER, "router", "route.plain"),
    ],
)
def test_nothing_is_written_or_deleted_in_these_namespaces(
    who: str, service: str, name: str, place: str, *, deleted: bool
) -> None:
    body = golden(service, name)
    body["metadata"]["namespace"] = place
    assert denied(who, body, deleted=deleted) != []


@pytest.mark.parametrize(("service", "name"), PREDICTORS)
def test_what_others_added_to_a_predictor_does_not_hold_up_a_change(
    service: str, name: str
) -> None:
    """A service must be stopped whatever a person has done to its InferenceService."""
    before = golden(service, name)
    pod_of(before).update(
        nodeName="node-1", initContainers=SIDE, volumes=[{"name": "x", "hostPath": {"path": "/"}}]
    )
    before["spec"]["transformer"] = {"containers": SIDE}
    after = copy.deepcopy(before)
    pod_of(after).update(minReplicas=3, maxReplicas=3)
    assert denied(DEPLOYER, after, before) == []


@pytest.mark.parametrize("who", ["aim-watcher", "aim-statuswriter", "somebody"])
def test_writes_of_others_are_not_looked_at(who: str) -> None:
    body = golden("discovery", "discovery-job")
    EVERYWHERE["host-path"](body)
    assert denied(who, body) == []


def test_every_policy_is_bound_and_denies() -> None:
    bodies = render(CHART)
    bound = {
        body["spec"]["policyName"]: body["spec"]["validationActions"]
        for body in bodies
        if body["kind"] == f"{POLICY}Binding"
    }
    assert bound == {policy["metadata"]["name"]: ["Deny"] for policy in policies()}
    assert {policy["spec"]["failurePolicy"] for policy in policies()} == {"Fail"}


@pytest.mark.parametrize(
    "arguments",
    [("--set=admissionPolicy.enabled=false",), ("--kube-version=1.29.0",)],
    ids=["off", "kubernetes-1.29"],
)
def test_there_are_none_where_they_are_off_or_unknown(arguments: tuple[str, ...]) -> None:
    assert policies(*arguments) == ()


def test_a_cluster_that_lacks_the_kind_gets_none() -> None:
    """Its discovery document counts, not its version."""
    assert policies("--api-versions=apps/v1/Deployment") == ()
    policy_kind = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
    both = f"--api-versions=apps/v1/Deployment,{policy_kind}"
    assert policies(both, "--kube-version=1.29.0") != ()
