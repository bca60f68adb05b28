"""Any set of values may follow any other: no update needs a field that Kubernetes never lets
change, and helm and kubectl do it on an API server.

`charts/0.1.0.yaml` is the immutable part of what the chart of that version rendered, by set of
values.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimctl.component_registry import SERVICES
from aimctl.manifests import documents
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.envtest import kube_apiserver
from aimlab.testing.charts import NAMESPACE, OVERLAYS, Body, place_of, render

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "aim"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
PRODUCTION = f"--values={CHART / 'values-production.yaml'}"
STORAGE = "nats.storage"
Run = Callable[..., Awaitable[tuple[int, str]]]
Place = tuple[str, str, str]

OPTIONS: dict[str, str] = {
    "no-admission-policies": "admissionPolicy.enabled=false",
    "some-namespaces": "namespaces={team-a,team-b}",
    "no-keys": "nats.auth.enabled=false",
    "three-servers": "nats.replicas=3,nats.streamReplicas=3",
    "five-servers": "nats.replicas=5",
    "nats-of-ones-own": "nats.bundled=false,nats.url=tls://nats.example.org:4222",
    "nats-resources": (
        "nats.resources.limits.memory=2Gi,nats.maxBytes=2147483648,nats.historyMaxBytes=2147483648,nats.image=registry.example.com/nats:2.15.2"
    ),
    "two-of-each": "replicas=2",
    "budgets": "podDisruptionBudget.enabled=true",
    "openshift": "podSecurity=openshift",
    "ca": "caBundle.configMapName=corporate-ca,caBundle.key=bundle.pem",
    "job-resources": (
        "services.cacher.jobResources.limits.memory=1Gi,services.discovery.jobResources.requests.cpu=1"
    ),
    "kserve-mode": "kserveMode=RawDeployment",
    "routing": "routing.anyPath=true,routing.hosts.team={*.team.example.org}",
    "images": (
        "image.registry=registry.example.com/aim,image.tag=9.9.9,image.pullPolicy=Always,image.pullSecrets={login}"
    ),
    "placement": "priorityClassName=high,nodeSelector.pool=system,tolerations[0].operator=Exists",
    "logs-and-traces": (
        "log.level=DEBUG,log.format=console,tracing.endpoint=http://otel.monitoring.svc:4318"
    ),
    "services": ",".join(
        f"services.{service}.resources.requests.cpu=1,services.{service}.env.AIM_HTTP_PORT=8080"
        for service in SERVICES
    ),
    "all-in-one": "allInOne=true,controlPlane.resources.requests.cpu=1",
    "caching": "caching.quota=50Ti,caching.download.env.HF_ENDPOINT=https://hub.example",
    "no-crds": "crds.install=false",
    "namespace": "namespace.create=true",
    "no-policies": "networkPolicy.enabled=false",
    "other-ports": (
        "networkPolicy.apiServer.ports={8443},networkPolicy.registry.ports={5000},networkPolicy.natsPort=4223"
    ),
    "other-places": "networkPolicy.tracingPort=4317,networkPolicy.metricsFrom.team=sre",
    "monitoring": "metrics.podMonitor=true,metrics.alerts=true,metrics.annotations=false",
}
"""Every option of values.yaml, switched from its default."""
SETS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "production": (PRODUCTION,),
    **{name: (f"--set={values}",) for name, values in OPTIONS.items()},
    **{f"production-{name}": (PRODUCTION, f"--set={values}") for name, values in OPTIONS.items()},
}
STATEFUL_SET_MUTABLE = frozenset(
    {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
)
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
MUTABLE = frozenset(
    {
        *POLICIES,
        "ServiceAccount",
        "ClusterRole",
        "Role",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Namespace",
        "PodMonitor",
        "PrometheusRule",
    }
)


def immutable(body: Body) -> Any:
    """The part that no update may change, as kube-apiserver validates updates of that kind.
    Raises ValueError for a kind that is not listed."""
    spec = body.get("spec") or {}
    match body["kind"]:
        case "StatefulSet":
            return {key: value for key, value in spec.items() if key not in STATEFUL_SET_MUTABLE}
        case "Deployment":
            return spec["selector"]
        case "Job":
            return spec["template"]
        case "Service":
            return {
                key: spec[key]
                for key in ("clusterIP", "clusterIPs", "loadBalancerClass")
                if key in spec
            }
        case "RoleBinding" | "ClusterRoleBinding":
            return body["roleRef"]
        case "CustomResourceDefinition":
            return {"group": spec["group"], "scope": spec["scope"]}
        case kind if kind in MUTABLE:
            return None
        case kind:
            raise ValueError(
                f"{place_of(body)}: which fields of a {kind} are immutable is not listed here"
            )


def immutable_parts(bodies: list[Body]) -> dict[Place, Any]:
    return {place_of(body): immutable(body) for body in bodies}


@cache
def rendered(name: str) -> dict[Place, Any]:
    return immutable_parts(render(CHART, *SETS[name]))


def released() -> Iterator[Any]:
    for file in sorted((Path(__file__).parent / "charts").glob("*.yaml")):
        for name, entries in documents(file.read_text())[0].items():
            yield pytest.param(
                {tuple(entry["place"]): entry["immutable"] for entry in entries},
                id=f"{file.stem}-{name}",
            )


def changed(before: dict[Place, Any], after: dict[Place, Any]) -> dict[Place, tuple[Any, Any]]:
    return {
        place: (before[place], after[place])
        for place in before.keys() & after.keys()
        if before[place] != after[place]
    }


@pytest.mark.parametrize("name", SETS)
def test_no_set_of_values_changes_an_immutable_field_of_another(name: str) -> None:
    """Being equal is transitive: what is equal to the defaults is so to each other."""
    assert changed(rendered("defaults"), rendered(name)) == {}


def test_every_option_of_the_values_is_switched_in_some_set() -> None:
    """But the storage of NATS, which is rejected instead."""

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    options = [
        f"{key}.{inner}".rstrip(".")
        for key, value in values.items()
        for inner in (value if isinstance(value, dict) and value else ("",))
    ]
    switched = tuple(part for values in OPTIONS.values() for part in values.split(","))
    assert [
        option for option in options if not any(part.startswith(option) for part in switched)
    ] == [STORAGE]


def test_an_immutable_field_that_differs_would_be_noticed() -> None:
    changes = changed(
        rendered("defaults"), immutable_parts(render(CHART, f"--set={STORAGE}.size=20Gi"))
    )
    assert list(changes) == [("StatefulSet", NAMESPACE, "aim-nats")]


@pytest.mark.parametrize("before", list(released()))
def test_a_released_chart_is_followed_by_this_one(before: dict[Place, Any]) -> None:
    """Claims had two sizes then: helm keeps the one that is there, with kubectl a patch does
    (docs/how-to/upgrade.md)."""
    after = rendered("defaults")
    differing = changed(before, after)
    for was, is_ in differing.values():
        (claim,), (now,) = was.pop("volumeClaimTemplates"), is_["volumeClaimTemplates"]
        assert claim["spec"].pop("resources") != now["spec"]["resources"]
        rest = {key: value for key, value in is_.items() if key != "volumeClaimTemplates"}
        assert (was, claim["spec"]) == (
            rest,
            {key: value for key, value in now["spec"].items() if key != "resources"},
        )
    assert before.keys() - after.keys() == {("ConfigMap", NAMESPACE, "aim-nats")}


@pytest.mark.parametrize("name", ["defaults", "production", "no-keys", "three-servers"])
def test_the_configuration_of_nats_belongs_to_its_pod(name: str) -> None:
    """So a pod restarted in the middle of a rollout never reads a configuration that includes
    files it has not."""
    bodies = render(CHART, *SETS[name])
    (nats,) = [body for body in bodies if body["kind"] == "StatefulSet"]
    assert [place_of(body) for body in bodies if body["kind"] == "ConfigMap"] == []
    template = nats["spec"]["template"]
    (config,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "config"]
    (item,) = config["downwardAPI"]["items"]
    text = template["metadata"]["annotations"]["aim.silogen.ai/nats.conf"]
    assert item == {
        "path": "nats.conf",
        "fieldRef": {"fieldPath": "metadata.annotations['aim.silogen.ai/nats.conf']"},
    }
    (container,) = template["spec"]["containers"]
    has_files = "/etc/aim/nats-server" in [
        mount["mountPath"] for mount in container["volumeMounts"]
    ]
    assert ("nats-server/auth.conf" in text) is has_files
    assert ("cluster {" in text) is (nats["spec"]["replicas"] > 1)


@asynccontextmanager
async def api_server(folder: Path) -> AsyncIterator[Path]:
    """A new one, real where KUBEBUILDER_ASSETS says where its programs are; gives the
    administrator's kubeconfig."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        async with kube_apiserver(Path(assets), folder) as kubeconfig:
            yield kubeconfig
    else:
        async with ApiServer() as server:
            write_kubeconfig(folder / "kubeconfig", server.url)
            yield folder / "kubeconfig"


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Runs a program of this environment against a new API server; gives its exit code and what
    it prints."""
    async with api_server(tmp_path) as kubeconfig:
        env = os.environ | {"KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path)}

        async def command(program: str, *args: str) -> tuple[int, str]:
            path = str(Path(sys.executable).with_name(program))
            process = await asyncio.create_subprocess_exec(
                path,
                *args,
                env=env,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return int(process.returncode or 0), output.decode()

        yield command


async def test_helm_upgrades_to_some_namespaces_and_back(run: Run) -> None:
    """Each time with the bindings of that set alone."""
    for name in ("team-a", "team-b"):
        code, output = await run("kubectl", "create", "namespace", name)
        assert code == 0, output
    bindings = ("clusterrolebindings,rolebindings", "-A", "-o", "name")
    label = "--selector=app.kubernetes.io/part-of=aim"
    found = []
    for verb, values in (
        ("install", ("--create-namespace",)),
        ("upgrade", SETS["some-namespaces"]),
        ("upgrade", ("--set=namespaces={team-b}",)),
        ("upgrade", ("--reset-values",)),
    ):
        code, output = await helm(run, verb, *values)
        assert code == 0, output
        code, output = await run("kubectl", "get", *bindings, label)
        assert code == 0, output
        found.append(sorted(output.split()))
    everywhere, two, one, again = found
    assert again == everywhere
    assert not {name for name in two if name in everywhere and name.startswith("clusterrole")}
    assert len(two) - len(one) == len(SERVICES)


async def helm(run: Run, verb: str, *values: str) -> tuple[int, str]:
    return await run("helm", verb, "aim", str(CHART), "--namespace", NAMESPACE, *values)


async def storage_of(run: Run) -> str:
    claim = ".spec.volumeClaimTemplates[0].spec"
    path = f"jsonpath={{{claim}.resources.requests.storage}}/{{{claim}.storageClassName}}"
    code, output = await run(
        "kubectl", "get", "statefulset", "aim-nats", "-n", NAMESPACE, "-o", path
    )
    assert code == 0, output
    return output


def every_pair(names: tuple[str, ...]) -> list[str]:
    """A way through all ordered pairs of names, each once: an Eulerian circuit of the complete
    directed graph."""
    left = {name: [other for other in names if other != name] for name in names}
    stack, way = [names[0]], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            way.append(stack.pop())
    return way[::-1]


@pytest.mark.timeout(240)
async def test_helm_upgrades_from_every_set_of_values_to_every_other(run: Run) -> None:
    names = ("defaults", "production-openshift", "nats-of-ones-own")
    first, *rest = way = every_pair(names)
    assert set(pairwise(way)) == set(permutations(names, 2))
    code, output = await helm(run, "install", "--create-namespace", *SETS[first])
    assert code == 0, output
    for name in rest:
        code, output = await helm(run, "upgrade", *SETS[name])
        assert code == 0, f"to {name}: {output}"


@pytest.mark.parametrize(
    "way", [("dev", "production", "dev"), ("production", "dev", "production")], ids="-".join
)
async def test_kubectl_applies_each_overlay_over_the_other(run: Run, way: tuple[str, ...]) -> None:
    assert set(way) == set(OVERLAYS)
    for folder in ("crds", *(f"overlays/{name}" for name in way)):
        code, output = await run("kubectl", "apply", "--server-side", "-k", str(KUSTOMIZE / folder))
        assert code == 0, output


@pytest.mark.parametrize(
    ("installed", "value", "fragments"),
    [
        pytest.param(
            (),
            f"{STORAGE}.size=20Gi",
            ("nats.storage.size is 20Gi", "has 10Gi", "nats.storage.size=10Gi"),
            id="larger",
        ),
        pytest.param(
            (f"--set={STORAGE}.size=20Gi",),
            f"{STORAGE}.size=10Gi",
            ("is 10Gi", "has 20Gi", "delete pvc"),
            id="smaller",
        ),
        pytest.param(
            (),
            f"{STORAGE}.className=fast",
            ("nats.storage.className is fast", "the cluster's default class", "delete pvc"),
            id="class",
        ),
        pytest.param(
            (f"--set={STORAGE}.className=slow",),
            f"{STORAGE}.className=fast",
            ("is fast", "has slow"),
            id="other-class",
        ),
    ],
)
async def test_other_nats_storage_is_rejected_before_any_apply(
    run: Run, installed: tuple[str, ...], value: str, fragments: tuple[str, ...]
) -> None:
    code, output = await helm(run, "install", "--create-namespace", *installed)
    assert code == 0, output
    versions = (
        "kubectl",
        "get",
        "deployments,statefulsets,services,networkpolicies",
        "-n",
        NAMESPACE,
        "-o",
    )
    before = await run(*versions, "jsonpath={.items[*].metadata.resourceVersion}")
    code, output = await helm(run, "upgrade", PRODUCTION, f"--set={value}")
    assert code != 0
    assert [
        part
        for part in (
            *fragments,
            "nothing was applied",
            f"-n {NAMESPACE} delete statefulset aim-nats",
        )
        if part not in output
    ] == [], output
    assert await run(*versions, "jsonpath={.items[*].metadata.resourceVersion}") == before


async def test_omitted_and_equal_storage_change_nothing(run: Run) -> None:
    code, output = await helm(
        run,
        "install",
        "--create-namespace",
        f"--set={STORAGE}.size=10240Mi,{STORAGE}.className=fast",
    )
    assert code == 0, output
    for values in (
        (PRODUCTION,),
        (f"--set={STORAGE}.size=10Gi",),
        (f"--set={STORAGE}.size=10240Mi,{STORAGE}.className=fast",),
        (),
    ):
        code, output = await helm(run, "upgrade", *values)
        assert code == 0, output
        assert await storage_of(run) in {"10240Mi/fast", "10Gi/fast"}


CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "expands"},
    "provisioner": "example.com/disks",
    "allowVolumeExpansion": True,
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {
        "name": "data-aim-nats-0",
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/name": "aim-nats"},
    },
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "expands",
        "volumeName": "disk-1",
        "resources": {"requests": {"storage": "10Gi"}},
    },
}
"""As the controller of StatefulSets makes it; a volume is bound to it below."""


@pytest.mark.skipif(
    "KUBEBUILDER_ASSETS" in os.environ,
    reason="kube-apiserver alone has no garbage collector, which orphans pods",
)
async def test_the_way_out_that_is_named_is_one(run: Run, tmp_path: Path) -> None:
    """The commands of the message as they are; then the same upgrade goes through."""

    async def must(program: str, *args: str) -> str:
        code, output = await run(program, *args)
        assert code == 0, output
        return output

    release, place = ("aim", str(CHART), "--namespace", NAMESPACE), ("-n", NAMESPACE)
    await must(
        "helm", "install", *release, "--create-namespace", f"--set={STORAGE}.className=expands"
    )
    (tmp_path / "claim.yaml").write_text(yaml.safe_dump_all([CLASS, CLAIM]))
    await must("kubectl", "create", "-f", str(tmp_path / "claim.yaml"))
    bound = '{"status": {"phase": "Bound", "capacity": {"storage": "10Gi"}}}'
    await must(
        "kubectl",
        "patch",
        "pvc",
        "data-aim-nats-0",
        *place,
        "--subresource=status",
        "--type=merge",
        f"--patch={bound}",
    )
    larger = ("upgrade", *release, f"--set={STORAGE}.size=20Gi")
    code, output = await run("helm", *larger)
    assert code != 0
    assert "then helm again with nats.storage.className=expands:" in output
    (grow,) = [line.strip() for line in output.splitlines() if "--cascade=orphan" in line]
    shell = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        grow,
        env=os.environ
        | {
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )
    assert await shell.wait() == 0
    await must("helm", *larger, f"--set={STORAGE}.className=expands")
    assert await storage_of(run) == "20Gi/expands"
    requested = "jsonpath={.spec.resources.requests.storage}"
    assert await must("kubectl", "get", "pvc", "data-aim-nats-0", *place, "-o", requested) == "20Gi"
