"""The findings of a cluster with one problem; all other findings are ok."""

import copy
import datetime
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from aim_deployer.gpus import load
from aimbus import BusStats, ConsumerStats, StreamStats
from aimctl.component_registry import SERVICES
from aimctl.doctor.checks import findings
from aimctl.doctor.collect import needed_grants
from aimctl.doctor.network import ENFORCE
from aimctl.doctor.snapshot import (
    LISTED,
    LISTED_TOO,
    Access,
    Body,
    Checked,
    Facts,
    Finding,
    Unknown,
)
from aimkube.rbac import Grant
from aimschema.crds import crd
from aimschema.kinds import KINDS
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    GATEWAY,
    GATEWAY_CLASS,
    INFERENCE_SERVICE,
    LEASE,
    MODEL,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    ROUTE,
    SERVICE,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
    TEMPLATE,
)

NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
TRUE = [
    {"type": type_, "status": "True"}
    for type_ in ("Ready", "Accepted", "Programmed", "Established")
]
ALL = {"allowedRoutes": {"namespaces": {"from": "All"}}}


def body(name: str, namespace: str | None = None, spec: Body | None = None, **fields: Any) -> Body:
    metadata = {
        "name": name,
        "labels": fields.pop("labels", {}),
        "annotations": fields.pop("annotations", {}),
    }
    return {
        "metadata": metadata | ({"namespace": namespace} if namespace else {}),
        "spec": spec or {},
        **fields,
    }


def definition(resource: Any, schema: Any = None) -> Body:
    version = {"name": resource.version, "served": True, "schema": schema}
    return body(
        f"{resource.plural}.{resource.group}",
        spec={"versions": [version]},
        status={"conditions": TRUE},
    )


def lease(service: str, **spec: str) -> Body:
    return body(
        f"aim-{service}",
        "aim-system",
        {"holderIdentity": "pod-1", "renewTime": "2030-01-01T11:59:58.000000Z", **spec},
    )


def node(
    labels: Mapping[str, str], *, cpu: str = "64", memory: str = "512Gi", **allocatable: str
) -> Body:
    gpus = {f"{vendor}.com/gpu": count for vendor, count in allocatable.items()}
    return body(
        "n1",
        labels=labels,
        status={"conditions": TRUE, "allocatable": {"cpu": cpu, "memory": memory, **gpus}},
    )


def gateway(**listener: Any) -> Body:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP", **ALL, **listener}]
    return body(
        "public",
        "edge",
        {"listeners": listeners},
        status={"conditions": TRUE, "addresses": [{"value": "10.0.0.1"}]},
    )


def config(**spec: Any) -> Body:
    return body(
        "default", "team", {"routing": {"gateway": {"name": "public", "namespace": "edge"}}, **spec}
    )


def storage_class(
    name: str = "shared", provisioner: str = "nfs.csi.k8s.io", *, default: bool = True
) -> Body:
    return body(
        name,
        annotations={"storageclass.kubernetes.io/is-default-class": str(default).lower()},
        provisioner=provisioner,
    )


def checked(account: str, verb: str = "create", *, allowed: bool = True) -> Checked:
    return Checked(Grant(account, "", "batch", "jobs", (), verb), allowed)


def controller(ready: int, *images: str) -> Body:
    template = {
        "spec": {
            "containers": [
                {"image": image} for image in images or ("kserve/kserve-controller:v0.16.0",)
            ]
        }
    }
    return body(
        "kserve-controller-manager",
        "kserve",
        {"replicas": 1, "template": template},
        status={"readyReplicas": ready},
    )


def policy(*egress: Body) -> Body:
    return body(
        "aim-services",
        "aim-system",
        {"podSelector": {}, "policyTypes": ["Egress"], "egress": list(egress)},
    )


def api_server(port: int, address: str = "10.1.2.3") -> Body:
    return body(
        "kubernetes",
        "default",
        endpoints=[{"addresses": [address]}],
        ports=[{"name": "https", "port": port}],
    )


def out(cidr: str, *ports: int, **block: Any) -> Body:
    return {
        "to": [{"ipBlock": {"cidr": cidr, **block}}],
        "ports": [{"port": port, "protocol": "TCP"} for port in ports],
    }


DEFINITIONS: dict[str, Body | None] = {
    each["metadata"]["name"]: each
    for each in (
        *(
            definition(
                next(r for r in LISTED if r.kind == kind.__name__),
                crd(kind)["spec"]["versions"][0]["schema"],
            )
            for kind in KINDS
        ),
        *map(definition, (INFERENCE_SERVICE, GATEWAY, ROUTE)),
    )
}
AMD = {"amd.com/gpu.device-id": "74a1"}
PROFILE = {"gpuModel": "MI300X", "gpusPerReplica": 4}
OBJECTS: dict[str, tuple[Body, ...]] = {
    resource.kind: () for resource in (*LISTED, *LISTED_TOO)
} | {
    NAMESPACE.kind: (body("aim-system"), body("team", labels={"tier": "gold"}), body("edge")),
    SERVICE_ACCOUNT.kind: tuple(body(f"aim-{service}", "aim-system") for service in SERVICES),
    LEASE.kind: tuple(map(lease, SERVICES)),
    STORAGE_CLASS.kind: (storage_class(),),
    GATEWAY_CLASS.kind: (body("edge", status={"conditions": TRUE}),),
    GATEWAY.kind: (gateway(),),
    NODE.kind: (node(AMD, amd="8"),),
    CONFIG.kind: (config(),),
    TEMPLATE.kind: (body("fast", "team", PROFILE),),
    SERVICE.kind: (body("chat", "team", {"templateRef": "fast"}),),
    MODEL.kind: (body("m", spec={"name": "org/m:1", "image": "registry.example.com/org/m:1"}),),
    DEPLOYMENT.kind: (controller(1),),
    NETWORK_POLICY.kind: (policy(out("10.0.0.0/8", 443, 6443)),),
    ENDPOINT_SLICE.kind: (api_server(6443),),
}
LOG = StreamStats("AIM_LOG", 10, 1000, 1 << 30, 604_800.0, 10, 1)
STATE = StreamStats("AIM_STATE", 5, 500, None, None, 10, 1, lag=0)
WELL = Facts(
    namespace="aim-system",
    now=NOW,
    nats_url="nats://there",
    server="v1.36.2",
    crds=DEFINITIONS,
    objects=OBJECTS,
    access=Access(tuple(checked(f"aim-{service}") for service in SERVICES)),
    bus=BusStats(LOG, STATE, (ConsumerStats("aim-cacher", "AIM_STATE", 0),), 1500, None),
    gpus=load(None),
    registries={"registry.example.com": ""},
)


def with_objects(resource: Any, *bodies: Body) -> Facts:
    return replace(WELL, objects={**WELL.objects, resource.kind: bodies})


def with_definition(resource: Any, changed: Body | None) -> Facts:
    return replace(WELL, crds={**DEFINITIONS, f"{resource.plural}.{resource.group}": changed})


def with_bus(**changes: Any) -> Facts:
    assert isinstance(WELL.bus, BusStats)
    return replace(WELL, bus=replace(WELL.bus, **changes))


def not_ok(facts: Facts) -> list[Finding]:
    return [finding for finding in findings(facts) if finding.level != "ok"]


def test_a_complete_cluster_has_only_ok_findings() -> None:
    assert not_ok(WELL) == []
    areas = {
        "kubernetes",
        "kinds",
        "kserve",
        "gateway api",
        "services",
        "permissions",
        "nats",
        "storage",
        "gateway",
        "gpu",
        "registry",
    }
    assert {finding.area for finding in findings(WELL)} == areas


def other_schema() -> Body:
    changed = copy.deepcopy(DEFINITIONS["modelcaches.aim.silogen.ai"])
    assert changed is not None
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "of old"
    return changed


NO_ACCOUNTS = with_objects(SERVICE_ACCOUNT)
CASES = [
    pytest.param(
        replace(WELL, server="v1.28.9"), "error", "older than 1.29", "upgrade", id="old-kubernetes"
    ),
    pytest.param(
        with_objects(NAMESPACE, body("team")),
        "error",
        "no namespace aim-system",
        "kubectl create namespace aim-system",
        id="no-namespace",
    ),
    pytest.param(
        replace(WELL, crds=Unknown("forbidden")),
        "warning",
        "cannot list CRDs: forbidden",
        "grant get on customresourcedefinitions",
        id="crds-unseen",
    ),
    pytest.param(
        with_definition(CACHE, None),
        "error",
        "ModelCache is not installed",
        "kubectl apply -f deploy/crds",
        id="kind-missing",
    ),
    pytest.param(
        with_definition(CACHE, other_schema()),
        "warning",
        "ModelCache is of another release",
        "deploy/crds",
        id="kind-of-another-release",
    ),
    pytest.param(
        with_definition(
            CACHE,
            body(
                "x",
                spec={"versions": [{"name": "v1", "served": True}]},
                status={"conditions": TRUE},
            ),
        ),
        "error",
        "ModelCache is not served in v1alpha1",
        "deploy/crds",
        id="kind-of-another-version",
    ),
    pytest.param(
        with_definition(INFERENCE_SERVICE, None),
        "error",
        "InferenceService v1beta1 is not installed",
        "install KServe",
        id="no-kserve",
    ),
    pytest.param(
        with_objects(DEPLOYMENT, controller(0)),
        "error",
        "0 of 1 pods ready",
        "kubectl -n kserve describe",
        id="kserve-not-ready",
    ),
    pytest.param(
        with_objects(DEPLOYMENT),
        "warning",
        "whether a controller runs is not known",
        "KServe",
        id="kserve-unseen",
    ),
    pytest.param(
        with_definition(ROUTE, None),
        "error",
        "HTTPRoute v1 is not installed",
        "standard-install.yaml",
        id="no-gateway-api",
    ),
    pytest.param(
        replace(WELL, objects={**OBJECTS, NODE.kind: Unknown("forbidden")}),
        "warning",
        "cannot list Node",
        "grant list on Node",
        id="nodes-unseen",
    ),
    pytest.param(
        with_objects(LEASE),
        "warning",
        "none of the six is running",
        "aimctl up",
        id="no-leader",
    ),
    pytest.param(
        with_objects(LEASE, *map(lease, SERVICES[1:])),
        "error",
        "not running: aim-watcher",
        "aimctl up",
        id="one-not-at-work",
    ),
    pytest.param(
        with_objects(
            LEASE, lease(SERVICES[0], renewTime="2030-01-01T11:58:00Z"), *map(lease, SERVICES[1:])
        ),
        "error",
        "not running: aim-watcher",
        "pods",
        id="lease-not-renewed",
    ),
    pytest.param(
        with_objects(LEASE, lease(SERVICES[0], holderIdentity=""), *map(lease, SERVICES[1:])),
        "error",
        "aim-watcher",
        "pods",
        id="lease-given-back",
    ),
    pytest.param(
        replace(WELL, access=Unknown("no checkout")),
        "warning",
        "not checked: no checkout",
        "from a checkout",
        id="access-not-asked",
    ),
    pytest.param(
        NO_ACCOUNTS,
        "warning",
        "none of the services' ServiceAccounts",
        "kubectl apply -f deploy/rbac",
        id="no-accounts",
    ),
    pytest.param(
        with_objects(SERVICE_ACCOUNT, *OBJECTS["ServiceAccount"][1:]),
        "error",
        "no ServiceAccount aim-watcher",
        "rbac",
        id="an-account",
    ),
    pytest.param(
        replace(
            WELL,
            access=Access(
                (
                    checked("aim-cacher", allowed=False),
                    checked("aim-cacher", "patch", allowed=False),
                    checked("aim-router"),
                )
            ),
        ),
        "error",
        "aim-cacher may not create, patch jobs.batch in every namespace",
        "kubectl apply -f deploy/rbac",
        id="permission-missing",
    ),
    pytest.param(
        replace(WELL, access=Access(Unknown("forbidden"))),
        "warning",
        "permissions of the services are unknown: forbidden",
        "subjectaccessreviews",
        id="may-not-ask",
    ),
    pytest.param(
        replace(WELL, access=Access((checked("aim-cacher"),), (checked("", allowed=False),))),
        "warning",
        "you may not create jobs.batch in every namespace",
        "request it",
        id="own-permission-missing",
    ),
    pytest.param(
        replace(WELL, bus=Unknown("no NATS server answers")),
        "error",
        "no NATS server answers",
        "AIM_NATS_URL",
        id="no-nats",
    ),
    pytest.param(
        replace(WELL, bus=Unknown("no route"), nats_url=""),
        "warning",
        "no route",
        "AIM_NATS_URL",
        id="no-nats-was-named",
    ),
    pytest.param(
        with_bus(log=None, state=None),
        "warning",
        "no stream AIM_LOG, AIM_STATE",
        "start the watcher",
        id="no-streams",
    ),
    pytest.param(
        with_bus(state=replace(STATE, last_seq=99)),
        "error",
        "no mirror of the current AIM_LOG (99 of 10)",
        "watcher",
        id="another-log",
    ),
    pytest.param(
        with_bus(state=replace(STATE, lag=5000)),
        "warning",
        "5000 messages behind",
        "disk",
        id="mirror-behind",
    ),
    pytest.param(
        with_bus(log=replace(LOG, size_bytes=1 << 30)),
        "warning",
        "drops events early",
        "AIM_NATS_MAX_BYTES",
        id="log-full",
    ),
    pytest.param(
        with_bus(used_bytes=95, most_bytes=100),
        "warning",
        "95 B of the 100 B",
        "more room",
        id="account-full",
    ),
    pytest.param(
        with_objects(STORAGE_CLASS),
        "error",
        "no default storage class; AIMNamespaceConfig team/default",
        "cacheStorage",
        id="no-default-class",
    ),
    pytest.param(
        with_objects(STORAGE_CLASS, storage_class(), storage_class("other")),
        "warning",
        "all the default",
        "off all but one",
        id="two-defaults",
    ),
    pytest.param(
        with_objects(CONFIG, config(cacheStorageClassName="fast")),
        "error",
        "no storage class fast, which AIMNamesp",
        "create it",
        id="class-missing",
    ),
    pytest.param(
        with_objects(STORAGE_CLASS, storage_class(provisioner="ebs.csi.aws.com")),
        "warning",
        "no ReadWriteMany",
        "shared",
        id="class-for-one-node",
    ),
    pytest.param(
        with_objects(STORAGE_CLASS, storage_class(provisioner="example.com/x")),
        "warning",
        "cannot be known",
        "create one",
        id="unknown-class",
    ),
    pytest.param(
        with_objects(GATEWAY_CLASS),
        "warning",
        "no GatewayClass is accepted",
        "install a Gateway API",
        id="no-gateway-class",
    ),
    pytest.param(
        with_objects(GATEWAY), "error", "no Gateway edge/public", "spec.routing", id="no-gateway"
    ),
    pytest.param(
        with_objects(CONFIG, config(routing={})),
        "error",
        "routing without a gateway",
        "spec.routing.gateway.name",
        id="routing-without-gateway",
    ),
    pytest.param(
        with_objects(GATEWAY, gateway() | {"status": {}}),
        "error",
        "not Accepted and Programmed",
        "describe gateway",
        id="gateway-not-up",
    ),
    pytest.param(
        with_objects(GATEWAY, gateway() | {"status": {"conditions": TRUE}}),
        "warning",
        "has no address yet",
        "describe",
        id="gateway-without-address",
    ),
    pytest.param(
        with_objects(GATEWAY, gateway(allowedRoutes={})),
        "error",
        "accepts HTTPRoutes from namespace team",
        "allowedRoutes",
        id="other-namespace",
    ),
    pytest.param(
        with_objects(GATEWAY, gateway(protocol="TCP")),
        "error",
        "accepts HTTPRoutes from",
        "allowedRoutes",
        id="no-http-listener",
    ),
    pytest.param(
        with_objects(
            GATEWAY,
            gateway(
                allowedRoutes={
                    "namespaces": {
                        "from": "Selector",
                        "selector": {"matchLabels": {"tier": "lead"}},
                    }
                }
            ),
        ),
        "error",
        "accepts HTTPRoutes from",
        "allowedRoutes",
        id="selector-does-not-fit",
    ),
    pytest.param(
        with_objects(
            CONFIG,
            config(
                routing={"gateway": {"name": "public", "namespace": "edge", "sectionName": "tls"}}
            ),
        ),
        "error",
        "no listener as AIMNamespaceConfig team/default names it (sectionName tls",
        "spec.routing.gateway",
        id="no-such-listener",
    ),
    pytest.param(
        with_objects(NODE, node({}, amd="8")),
        "warning",
        "no label amd.com/gpu.device-id",
        "node labeller",
        id="node-not-labelled",
    ),
    pytest.param(
        with_objects(NODE, node({"beta.amd.com/gpu.device-id": "74a1"}, amd="8")),
        "warning",
        "older node labeller",
        "install",
        id="beta-label",
    ),
    pytest.param(
        with_objects(NODE, node(AMD)),
        "warning",
        "has no amd.com/gpu to give",
        "device plugin",
        id="no-device-plugin",
    ),
    pytest.param(
        with_objects(NODE),
        "warning",
        "no ready node has a known GPU",
        "add such nodes",
        id="no-gpu-nodes",
    ),
    pytest.param(
        with_objects(NODE, node({"amd.com/gpu.device-id": "740f"}, amd="8")),
        "error",
        "needs MI300X, which no ready node has",
        "74a1",
        id="another-gpu",
    ),
    pytest.param(
        with_objects(NODE, node(AMD, amd="2")),
        "error",
        "needs 4 MI300X in one node; 2 is the most",
        "amd.com/gpu: 4",
        id="too-few-gpus",
    ),
    pytest.param(
        with_objects(TEMPLATE, body("fast", "team", PROFILE | {"gpuModel": "MI999"})),
        "error",
        "MI999, which is in no GPU table",
        "AIM_GPU_TABLE",
        id="gpu",
    ),
    pytest.param(
        with_objects(MODEL, body("m", spec={"image": "org/UPPER"})),
        "error",
        "AIMClusterModel m:",
        "spec.image of AIMClusterModel m",
        id="bad-image",
    ),
    pytest.param(
        with_objects(
            MODEL,
            body(
                "m",
                spec={"image": "a/b"},
                status={
                    "conditions": [
                        {"type": "ImageInspected", "status": "False", "message": "401 from a"}
                    ]
                },
            ),
        ),
        "error",
        "AIMClusterModel m: 401 from a",
        "aimctl retry aimclm/m",
        id="image-not-inspected",
    ),
    pytest.param(
        with_objects(NODE, node(AMD, amd="8", cpu="15900m")),
        "error",
        "with cpu 16 and memory 128Gi in one node",
        "cpu: 16",
        id="too-little-cpu",
    ),
    pytest.param(
        with_objects(NODE, node(AMD, amd="8", memory="131000000Ki")),
        "error",
        "n1 cpu 64, memory 131000000Ki",
        "memory: 128Gi",
        id="too-little-memory",
    ),
    pytest.param(
        with_objects(DEPLOYMENT, controller(1, "kserve/kserve-controller:v0.15.2")),
        "warning",
        "older than 0.16",
        "RawDeployment",
        id="old-kserve",
    ),
    pytest.param(
        with_objects(
            DEPLOYMENT,
            controller(
                1, "quay.io/brancz/kube-rbac-proxy:v0.18.0", "r:5000/kserve-controller:0.9.0"
            ),
        ),
        "warning",
        "r:5000/kserve-controller:0.9.0",
        "upgrade KServe",
        id="older-kserve-behind-a-proxy",
    ),
    pytest.param(
        with_objects(
            NAMESPACE,
            body("aim-system"),
            body("edge"),
            body("team", labels={"tier": "gold", ENFORCE: "restricted"}),
        ),
        "warning",
        "namespace team enforces the Pod Security Standard restricted, which rejects model pods",
        f"kubectl label namespace team {ENFORCE}=baseline",
        id="restricted-namespace",
    ),
    pytest.param(
        with_objects(ENDPOINT_SLICE, api_server(8443)),
        "warning",
        "aim-system/aim-services",
        "{443,8443}",
        id="api-server-on-another-port",
    ),
    pytest.param(
        with_objects(ENDPOINT_SLICE, api_server(6443, "203.0.113.9")),
        "warning",
        "at 203.0.113.9:6443",
        "cidrs",
        id="api-server-with-a-public-address",
    ),
    pytest.param(
        replace(WELL, registries={"r": "refused"}),
        "warning",
        "r does not respond here: refused",
        "network",
        id="registry-away",
    ),
]


@pytest.mark.parametrize(("facts", "level", "what", "fix"), CASES)
def test_each_problem_has_its_level_and_its_fix(
    facts: Facts, level: str, what: str, fix: str
) -> None:
    found = not_ok(facts)
    assert [
        finding
        for finding in found
        if finding.level == level and what in finding.what and fix in finding.fix
    ], found
    assert all(finding.fix for finding in found)


def test_without_an_api_server_only_the_bus_is_checked() -> None:
    found = findings(replace(WELL, server=Unknown("connection refused")))
    assert [(finding.area, finding.level) for finding in found] == [
        ("kubernetes", "error"),
        ("nats", "ok"),
    ]
    assert "connection refused" in found[0].what


def test_one_account_for_all_services_is_no_missing_account() -> None:
    together = with_objects(SERVICE_ACCOUNT, body("aim-control-plane", "aim-system"))
    assert "permissions" not in {
        finding.area for finding in findings(together) if finding.level != "ok"
    }


def test_without_accounts_the_users_permissions_decide() -> None:
    found = findings(replace(NO_ACCOUNTS, access=Access((), (checked(""),))))
    assert "your user has all permissions for aimctl up" in [finding.what for finding in found]


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(
            with_objects(STORAGE_CLASS, storage_class("s", "nfs.csi.k8s.io")),
            id="by-its-provisioner",
        ),
        pytest.param(
            replace(
                WELL,
                objects={
                    **OBJECTS,
                    STORAGE_CLASS.kind: (storage_class("s", "example.com/x"),),
                    CLAIM.kind: (
                        body(
                            "c",
                            "team",
                            {"storageClassName": "s", "accessModes": ["ReadWriteMany"]},
                            status={"phase": "Bound"},
                        ),
                    ),
                },
            ),
            id="by-a-claim-that-has-one",
        ),
    ],
)
def test_a_class_is_known_to_share_its_volumes(facts: Facts) -> None:
    assert not_ok(facts) == []


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "tier", "operator": "In", "values": ["gold"]}, True),
        ({"key": "tier", "operator": "NotIn", "values": ["gold"]}, False),
        ({"key": "tier", "operator": "Exists"}, True),
        ({"key": "tier", "operator": "DoesNotExist"}, False),
    ],
)
def test_a_listener_selects_namespaces_by_their_labels(expression: Body, *, fits: bool) -> None:
    rule = {"namespaces": {"from": "Selector", "selector": {"matchExpressions": [expression]}}}
    assert (not_ok(with_objects(GATEWAY, gateway(allowedRoutes=rule))) == []) is fits


def test_a_template_that_no_service_uses_may_wait_for_its_nodes() -> None:
    facts = replace(
        WELL,
        objects={
            **OBJECTS,
            SERVICE.kind: (),
            NODE.kind: (node({"amd.com/gpu.device-id": "740f"}, amd="8"),),
        },
    )
    assert [(finding.level, finding.area) for finding in not_ok(facts)] == [("warning", "gpu")]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({}, id="everywhere"),
        pytest.param({"ports": [{"port": 16443}]}, id="that-port"),
        pytest.param({"ports": [{"port": 16000, "endPort": 17000}]}, id="a-range"),
        pytest.param({"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]}, id="that-address"),
        pytest.param(out("10.0.0.0/8", 443, 16443), id="both"),
    ],
)
def test_a_policy_that_allows_the_api_server_is_no_finding(rule: Body) -> None:
    objects = {
        **OBJECTS,
        ENDPOINT_SLICE.kind: (api_server(16443),),
        NETWORK_POLICY.kind: (policy(out("192.168.0.0/16", 443), rule),),
    }
    assert not_ok(replace(WELL, objects=objects)) == []


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(out("10.0.0.0/8", 443, 6443), id="other-ports"),
        pytest.param(out("10.0.0.0/8", 16443, **{"except": ["10.1.0.0/16"]}), id="except"),
        pytest.param(out("fd00::/8", 16443), id="other-family"),
        pytest.param({"to": [{"namespaceSelector": {}}]}, id="pods"),
        pytest.param(
            {"ports": [{"port": 16443, "protocol": "UDP"}, {"port": "https"}]},
            id="other-protocol-and-name",
        ),
    ],
)
def test_a_policy_that_does_not_is_named(rule: Body) -> None:
    objects = {
        **OBJECTS,
        ENDPOINT_SLICE.kind: (api_server(16443),),
        NETWORK_POLICY.kind: (policy(rule),),
    }
    assert [
        (finding.level, finding.area) for finding in not_ok(replace(WELL, objects=objects))
    ] == [("warning", "services")]


@pytest.mark.parametrize(
    "image",
    [
        "kserve/kserve-controller:v0.16.0-rc1",
        "kserve/kserve-controller:v1.0.0",
        "kserve/kserve-controller:latest",
        "odh@sha256:0.1",
    ],
)
def test_a_new_controller_or_one_without_version_is_ok(image: str) -> None:
    assert not_ok(with_objects(DEPLOYMENT, controller(1, image))) == []


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("team", {"tier": "gold", ENFORCE: "baseline"}),
        ("team", {"tier": "gold", ENFORCE.replace("enforce", "warn"): "restricted"}),
        ("other", {ENFORCE: "restricted"}),
    ],
)
def test_a_namespace_that_admits_models_is_no_finding(name: str, labels: dict[str, str]) -> None:
    spaces = (
        body("aim-system", labels={ENFORCE: "restricted"}),
        body("edge"),
        body("team", labels={"tier": "gold"}),
        body(name, labels=labels),
    )
    assert not_ok(with_objects(NAMESPACE, *spaces)) == []


@pytest.mark.parametrize(
    ("grant", "served", "secrets", "expected"),
    [
        pytest.param(("batch", "jobs", ""), (), (), [("", ())], id="all-namespaces"),
        pytest.param(("batch", "jobs", ""), ("a", "b"), (), [("a", ()), ("b", ())], id="two"),
        pytest.param((MODEL.group, MODEL.plural, ""), ("a",), (), [("", ())], id="models"),
        pytest.param(
            (MODEL.group, f"{MODEL.plural}/status", ""), ("a",), (), [("", ())], id="status"
        ),
        pytest.param((GATEWAY.group, GATEWAY.plural, ""), ("a",), (), [("", ())], id="gateways"),
        pytest.param(("", "secrets", "own"), ("a",), ("s",), [("own", ("s",))], id="pull-secrets"),
        pytest.param(("", "secrets", "own"), (), (), [], id="no-pull-secrets"),
        pytest.param(("", "leases", "own"), ("a",), (), [("own", ())], id="own-namespace"),
    ],
)
def test_permissions_are_checked_where_models_are_served(
    grant: tuple[str, str, str],
    served: tuple[str, ...],
    secrets: tuple[str, ...],
    expected: list[tuple[str, tuple[str, ...]]],
) -> None:
    group, resource, namespace = grant
    whole = Grant("aim-watcher", namespace, group, resource, (), "get")
    found = needed_grants(whole, served, secrets)
    assert [(each.namespace, each.names) for each in found] == expected
    assert {each.resource for each in found} <= {resource}
