"""The chart and the kustomize folders: valid for Kubernetes, restricted, alike, and with nothing
of their own that deploy/ already says."""

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from aim_cacher.settings import CacherSettings
from aim_discovery.settings import DiscoverySettings
from aim_testing import kubernetes_schemas
from aim_watcher.nats_secrets import desired_secrets, names
from aim_watcher.settings import WatcherSettings
from aimcontroller.settings import ServiceSettings
from aimctl.component_registry import SERVICES
from aimctl.manifests import crds, documents, rbac
from aimkube.rbac import list_grants
from aimlab.testing.charts import NAMESPACE, OVERLAYS, Body, place_of, render
from aimschema.environment import COMPONENT_VARIABLES
from tools.kustomize import DEFINITION, folders, without_helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "aim"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
EXTERNAL = "--set=nats.bundled=false,nats.url=tls://nats.example.org:4222"
EVERYTHING = "--set=namespace.create=true,tracing.endpoint=http://otel.monitoring.svc:4318,priorityClassName=high,image.pullSecrets={login}"
OPENSHIFT = "--set=podSecurity=openshift"
ALL_IN_ONE = "--set=allInOne=true,podDisruptionBudget.enabled=true"
INSTALLATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "dev": ((), ()),
    "production": ((), OVERLAYS["production"]),
    "external-nats": ((EXTERNAL,), ()),
    "no-keys": (("--set=nats.auth.enabled=false",), ()),
    "everything": ((EVERYTHING,), OVERLAYS["production"]),
    "openshift": ((OPENSHIFT,), OVERLAYS["production"]),
    "all-in-one": ((ALL_IN_ONE,), ()),
}
"""Arguments and files of values."""
SEPARATE = tuple(name for name in INSTALLATIONS if name != "all-in-one")
TOGETHER = "aim-control-plane"
SOME_NAMESPACES = "--set=namespaces={team-a,team-b}"
ACCOUNT = "ServiceAccount"
NATS = "aim-nats"
INIT = "aim-nats-init"
POLICY = "ValidatingAdmissionPolicy"
every = pytest.mark.parametrize("installation", INSTALLATIONS)
separate = pytest.mark.parametrize("installation", SEPARATE)


@cache
def of(installation: str) -> tuple[Body, ...]:
    arguments, files = INSTALLATIONS[installation]
    return tuple(render(CHART, *arguments, files=files))


def workloads(installation: str) -> dict[str, Body]:
    return {
        body["metadata"]["name"]: body
        for body in of(installation)
        if body["kind"] in {"Deployment", "StatefulSet"}
    }


def jobs(installation: str) -> list[Body]:
    return [body for body in of(installation) if body["kind"] == "Job"]


def pod_specs(installation: str) -> Iterator[Body]:
    return (
        body["spec"]["template"]["spec"]
        for body in (*workloads(installation).values(), *jobs(installation))
    )


def by_kind(installation: str, kind: str) -> dict[str, Body]:
    return {body["metadata"]["name"]: body for body in of(installation) if body["kind"] == kind}


def env_of(spec: Body) -> dict[str, Any]:
    (container,) = spec["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@every
def test_every_object_is_valid_for_kubernetes(installation: str) -> None:
    for body in of(installation):
        kubernetes_schemas.validate(body)


def test_an_invalid_object_would_be_noticed() -> None:
    (nats,) = by_kind("dev", "StatefulSet").values()
    with pytest.raises(jsonschema.ValidationError, match="noSuchField"):
        kubernetes_schemas.validate(nats | {"noSuchField": 1})


@every
def test_every_object_has_namespace_and_labels_and_is_unique(installation: str) -> None:
    for body in of(installation):
        metadata = body["metadata"]
        cluster_wide = {
            DEFINITION,
            "Namespace",
            "ClusterRole",
            "ClusterRoleBinding",
            POLICY,
            f"{POLICY}Binding",
        }
        assert metadata.get("namespace") == (None if body["kind"] in cluster_wide else NAMESPACE), (
            place_of(body)
        )
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "aim", place_of(body)
    places = [place_of(body) for body in of(installation)]
    assert len(places) == len(set(places))


@separate
def test_kinds_and_permissions_are_those_of_deploy(installation: str) -> None:
    """Word for word but for labels and annotations."""

    def bare(body: Body) -> Body:
        return body | {
            "metadata": {
                key: value
                for key, value in body["metadata"].items()
                if key in {"name", "namespace"}
            }
        }

    kinds = {DEFINITION, "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", ACCOUNT}
    rendered = {place_of(body): bare(body) for body in of(installation) if body["kind"] in kinds}
    for kind, name in ((ACCOUNT, NATS), (ACCOUNT, INIT), ("Role", INIT), ("RoleBinding", INIT)):
        rendered.pop((kind, NAMESPACE, name), None)
    assert rendered == {place_of(body): bare(body) for body in (*crds(), *rbac())}


def test_with_namespaces_roles_are_bound_in_these() -> None:
    """The watcher and the statuswriter in the release's namespace too."""
    bodies = render(CHART, SOME_NAMESPACES)
    cluster = [body for body in bodies if body["kind"] == "ClusterRoleBinding"]
    assert {body["roleRef"]["name"] for body in cluster} == {
        "aim-watcher-cluster",
        "aim-statuswriter-cluster",
        "aim-discovery-cluster",
    }
    bound = {
        (body["roleRef"]["name"], body["metadata"]["namespace"])
        for body in bodies
        if body["kind"] == "RoleBinding" and body["roleRef"]["kind"] == "ClusterRole"
    }
    named = {(f"aim-{name}", space) for name in SERVICES for space in ("team-a", "team-b")}
    assert bound == named | {("aim-watcher", NAMESPACE), ("aim-statuswriter", NAMESPACE)}
    assert len({place_of(body) for body in bodies}) == len(bodies)
    for body in bodies:
        kubernetes_schemas.validate(body)


def test_with_namespaces_few_kinds_are_read_cluster_wide() -> None:
    """And what is kept of images in the release's namespace, Events of models in `default`."""
    roles = [
        body
        for body in render(CHART, SOME_NAMESPACES)
        if body["kind"] in {"ClusterRole", "Role"}
        and body["metadata"]["name"].rpartition("-")[2] in {"cluster", "events", "configmaps"}
    ]
    granted = {
        (body["metadata"].get("namespace", ""), body["metadata"]["name"], resource): rule["verbs"]
        for body in roles
        for rule in body["rules"]
        for resource in rule["resources"]
    }
    assert granted == {
        ("", "aim-watcher-cluster", "aimclustermodels"): ["list", "watch"],
        ("", "aim-watcher-cluster", "gateways"): ["list", "watch"],
        ("", "aim-watcher-cluster", "storageclasses"): ["list", "watch"],
        ("", "aim-statuswriter-cluster", "aimclustermodels"): ["get"],
        ("", "aim-statuswriter-cluster", "aimclustermodels/status"): ["patch"],
        ("", "aim-discovery-cluster", "aimclustermodels"): ["get"],
        ("default", "aim-statuswriter-events", "events"): ["get", "create"],
        (NAMESPACE, "aim-discovery-configmaps", "configmaps"): ["get", "create", "patch"],
    }


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param("[]", None, id="none"),
        pytest.param('["harbor","quay"]', ["harbor", "quay"], id="others"),
        pytest.param("null", ["registries"], id="a-release-that-did-not-know-it"),
    ],
)
def test_discovery_reads_the_named_secrets(value: str, names: list[str] | None) -> None:
    """No rule without names: it would grant every Secret."""
    (role,) = (
        body
        for body in render(CHART, f"--set-json=services.discovery.pullSecrets={value}")
        if (body["kind"], body["metadata"]["name"]) == ("Role", "aim-discovery")
    )
    rules = [rule for rule in role["rules"] if "secrets" in rule["resources"]]
    assert [rule["resourceNames"] for rule in rules] == ([] if names is None else [names])
    assert all(rule["verbs"] == ["get"] for rule in rules)
    assert [rule["resources"] for rule in role["rules"]][-2:] == [["leases"], ["leases"]]


def test_kinds_are_upgraded_with_the_release_and_stay_after_it() -> None:
    assert {
        body["metadata"]["annotations"]["helm.sh/resource-policy"]
        for body in by_kind("dev", DEFINITION).values()
    } == {"keep"}
    assert [
        body for body in render(CHART, "--set=crds.install=false") if body["kind"] == DEFINITION
    ] == []


@every
def test_every_pod_passes_the_restricted_pod_security_standard(installation: str) -> None:
    """Kubernetes, "Pod Security Standards", and in addition a read-only root filesystem."""
    for spec in pod_specs(installation):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert (spec["securityContext"].get("runAsUser") or 1) > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert all(
            volume.keys() & {"emptyDir", "secret", "configMap", "downwardAPI", "projected"}
            for volume in spec["volumes"]
        )
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all("hostPort" not in port for port in container.get("ports", ()))


def test_on_openshift_the_namespace_chooses_users_and_groups() -> None:
    for fixed, chosen in zip(pod_specs("production"), pod_specs("openshift"), strict=True):
        assert fixed["securityContext"].keys() - chosen["securityContext"].keys() == {
            "runAsUser",
            "runAsGroup",
            "fsGroup",
        }
        assert chosen["securityContext"].items() <= fixed["securityContext"].items()


@pytest.mark.parametrize(
    ("values", "variable", "value", "services"),
    [
        pytest.param(
            "", "AIM_POD_SECURITY", "restricted", {"discovery", "cacher"}, id="pod-security"
        ),
        pytest.param(
            "podSecurity=openshift",
            "AIM_POD_SECURITY",
            "openshift",
            {"discovery", "cacher"},
            id="openshift",
        ),
        pytest.param("", "AIM_KSERVE_MODE", "auto", {"deployer"}, id="kserve-mode"),
        pytest.param(
            "kserveMode=RawDeployment",
            "AIM_KSERVE_MODE",
            "RawDeployment",
            {"deployer"},
            id="kserve-before-0.16",
        ),
        pytest.param("", "AIM_ROUTE_ANY_PATH", None, set(), id="paths-of-the-namespace"),
        pytest.param(
            "routing.anyPath=true", "AIM_ROUTE_ANY_PATH", "true", {"router"}, id="any-path"
        ),
        pytest.param("", "AIM_ROUTE_HOSTS", None, set(), id="any-host"),
        pytest.param(
            "routing.hosts.team-a={*.a.example.org}",
            "AIM_ROUTE_HOSTS",
            '{"team-a":["*.a.example.org"]}',
            {"router"},
            id="hosts",
        ),
        pytest.param("", "AIM_NAMESPACES", None, set(), id="all-namespaces"),
        pytest.param(
            "namespaces={team-a,team-b}",
            "AIM_NAMESPACES",
            "team-a,team-b",
            {"watcher"},
            id="some-namespaces",
        ),
        pytest.param("", "AIM_CA_BUNDLE", None, set(), id="public-authorities"),
        pytest.param(
            "caBundle.configMapName=ca,caBundle.key=b.pem",
            "AIM_CA_BUNDLE",
            "/etc/aim/ca/ca.crt",
            {"discovery", "cacher"},
            id="ca",
        ),
        pytest.param("", "AIM_JOB_RESOURCES", None, set(), id="built-in-resources"),
        pytest.param(
            "services.discovery.jobResources.limits.memory=1Gi",
            "AIM_JOB_RESOURCES",
            '{"limits":{"memory":"1Gi"}}',
            {"discovery"},
            id="discovery-jobs",
        ),
        pytest.param(
            "services.cacher.jobResources.requests.cpu=2",
            "AIM_JOB_RESOURCES",
            '{"requests":{"cpu":2}}',
            {"cacher"},
            id="downloads",
        ),
        pytest.param(
            "caching.download.env.HF_ENDPOINT=https://hub.example",
            "AIM_DOWNLOAD_ENV",
            '{"HF_ENDPOINT":"https://hub.example"}',
            {"cacher"},
            id="mirror",
        ),
        pytest.param(
            "caching.download.serviceAccountName=s",
            "AIM_DOWNLOAD_SERVICE_ACCOUNT",
            "s",
            {"cacher"},
            id="account-of-downloads",
        ),
        pytest.param(
            "caching.download.include={*.json,*.safetensors}",
            "AIM_DOWNLOAD_INCLUDE",
            '["*.json","*.safetensors"]',
            {"cacher"},
            id="files-to-download",
        ),
        pytest.param(
            "caching.download.exclude={*.bin}",
            "AIM_DOWNLOAD_EXCLUDE",
            '["*.bin"]',
            {"cacher"},
            id="files-not-to-download",
        ),
        pytest.param("", "AIM_DOWNLOAD_ENV", None, set(), id="no-mirror"),
        pytest.param("caching.quota=50Ti", "AIM_CACHE_QUOTA", "50Ti", {"cacher"}, id="quota"),
        pytest.param("", "AIM_CACHE_QUOTA", None, set(), id="no-quota"),
    ],
)
def test_a_value_becomes_a_variable_of_the_services_that_know_it(
    values: str, variable: str, value: str | None, services: set[str]
) -> None:
    deployments = [
        body
        for body in render(CHART, *([f"--set={values}"] if values else []))
        if body["kind"] == "Deployment"
    ]
    found = {
        body["metadata"]["name"]: env_of(body["spec"]["template"]["spec"]).get(variable)
        for body in deployments
    }
    assert {name: text for name, text in found.items() if text is not None} == {
        f"aim-{service}": value for service in services
    }


@pytest.mark.parametrize(
    "values",
    [
        "podSecurity=openshift",
        "caching.download.env.A=b,caching.download.include={*.json}",
        "services.cacher.jobResources.limits.memory=1Gi,services.discovery.jobResources.requests.cpu=2",
        "services.cacher.jobResources.requests.memory=268435456,services.discovery.jobResources.limits.cpu=500m",
    ],
)
def test_services_take_the_variables_as_they_are_rendered(values: str) -> None:
    settings = {"aim-cacher": CacherSettings, "aim-discovery": DiscoverySettings}
    for body in render(CHART, f"--set={values}"):
        if body["kind"] == "Deployment" and body["metadata"]["name"] in settings:
            env = env_of(body["spec"]["template"]["spec"])
            loaded = settings[body["metadata"]["name"]](
                **{name.lower().removeprefix("aim_"): value for name, value in env.items()}
            )
            rules = loaded.job_rules()
            assert rules.openshift is ("openshift" in values)
            assert (rules.resources or {}).keys() <= {"requests", "limits"}
            assert bool(rules.resources) is ("jobResources" in values)


def test_a_ca_bundle_is_mounted_at_the_path_of_its_variable() -> None:
    """Under one name, whatever its key is called."""
    for body in render(CHART, "--set=caBundle.configMapName=corporate,caBundle.key=bundle.pem"):
        if body["kind"] == "Deployment" and body["metadata"]["name"] in {
            "aim-discovery",
            "aim-cacher",
        }:
            spec = body["spec"]["template"]["spec"]
            (volume,) = [volume for volume in spec["volumes"] if "configMap" in volume]
            assert volume["configMap"] == {
                "name": "corporate",
                "items": [{"key": "bundle.pem", "path": "ca.crt"}],
            }
            (container,) = spec["containers"]
            assert {
                "name": volume["name"],
                "mountPath": "/etc/aim/ca",
                "readOnly": True,
            } in container["volumeMounts"]


@every
def test_every_container_has_probes_resources_and_a_pinned_image(installation: str) -> None:
    for spec in pod_specs(installation):
        for container in spec["containers"]:
            if spec.get("restartPolicy") != "OnFailure":  # of a Job
                ports = {port["name"] for port in container["ports"]}
                assert {
                    container[probe]["httpGet"]["port"]
                    for probe in ("livenessProbe", "readinessProbe")
                } <= ports
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert re.search(r":[\w.-]*\d[\w.-]*$", container["image"]), container["image"]


@separate
def test_each_service_is_its_own_account_and_nats_has_no_token(installation: str) -> None:
    found = {
        name: body["spec"]["template"]["spec"] for name, body in workloads(installation).items()
    }
    assert found.keys() - {NATS} == {f"aim-{service}" for service in SERVICES}
    for name, spec in found.items():
        assert spec["serviceAccountName"] == name
        assert spec["automountServiceAccountToken"] is (name != NATS)
        assert spec["enableServiceLinks"] is False


@separate
def test_services_know_every_variable_of_the_chart(
    installation: str,
) -> None:
    known = {f"AIM_{field.upper()}" for field in ServiceSettings.model_fields} | COMPONENT_VARIABLES
    for name, body in workloads(installation).items():
        if name != NATS:
            assert env_of(body["spec"]["template"]["spec"]).keys() <= known | {
                "OTEL_EXPORTER_OTLP_ENDPOINT"
            }
    cacher = env_of(workloads(installation)["aim-cacher"]["spec"]["template"]["spec"])
    assert cacher["AIM_DOWNLOADER_IMAGE"] == CacherSettings.model_fields["downloader_image"].default


def test_production_survives_a_lost_node_and_dev_has_one_of_each() -> None:
    assert {body["spec"]["replicas"] for body in workloads("dev").values()} == {1}
    replicas = {name: body["spec"]["replicas"] for name, body in workloads("production").items()}
    assert replicas.pop(NATS) == 3
    assert set(replicas.values()) == {2}
    budgets = by_kind("production", "PodDisruptionBudget")
    assert budgets.keys() == workloads("production").keys()
    for name, body in workloads("production").items():
        assert budgets[name]["spec"]["maxUnavailable"] == 1
        spread = body["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        for selector in (
            budgets[name]["spec"]["selector"],
            *(one["labelSelector"] for one in spread),
            body["spec"]["selector"],
        ):
            assert (
                selector["matchLabels"].items()
                <= body["spec"]["template"]["metadata"]["labels"].items()
            )
    watcher = env_of(workloads("production")["aim-watcher"]["spec"]["template"]["spec"])
    assert watcher["AIM_NATS_REPLICAS"] == "3"


@pytest.mark.parametrize("installation", ["dev", "production"])
def test_each_service_mounts_only_its_own_key_if_any(
    installation: str,
) -> None:
    for service in SERVICES:
        spec = workloads(installation)[f"aim-{service}"]["spec"]["template"]["spec"]
        secrets = [
            volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume
        ]
        assert secrets == [f"aim-nats-{service}"]
        env = env_of(spec)
        assert (env["AIM_NATS_CREDS"], env["AIM_NATS_CA"]) == (
            "/etc/aim/nats/nkey.seed",
            "/etc/aim/nats/ca.crt",
        )
        assert env["AIM_NATS_URL"] == f"tls://aim-nats.{NAMESPACE}.svc:4222"
    assert all(
        "secret" not in volume for spec in pod_specs("no-keys") for volume in spec["volumes"]
    )
    assert env_of(workloads("no-keys")["aim-router"]["spec"]["template"]["spec"])[
        "AIM_NATS_URL"
    ].startswith("nats://")


def test_with_one_process_all_permissions_are_its_own() -> None:
    assert workloads("all-in-one").keys() == {TOGETHER, NATS}
    assert by_kind("all-in-one", ACCOUNT).keys() == {TOGETHER, NATS, INIT}
    grants = {grant._replace(account=TOGETHER) for grant in list_grants(rbac())}
    rendered = list_grants(
        body
        for body in of("all-in-one")
        if body["kind"] in {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    )
    assert {grant for grant in rendered if grant.account != INIT} == grants
    assert by_kind("all-in-one", "PodDisruptionBudget").keys() == {TOGETHER, NATS}


def test_with_one_process_each_service_has_its_own_key() -> None:
    spec = workloads("all-in-one")[TOGETHER]["spec"]["template"]["spec"]
    (keys,) = [volume["projected"] for volume in spec["volumes"] if "projected" in volume]
    files = {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in keys["sources"]
        for item in source["secret"]["items"]
    }
    for component in SERVICES:
        settings = WatcherSettings.model_validate(
            {
                "nats_creds": env_of(spec)["AIM_NATS_CREDS"],
                "nats_ca": env_of(spec)["AIM_NATS_CA"],
            }
        ).of_component(component)
        folder = f"{spec['containers'][0]['volumeMounts'][1]['mountPath']}/"
        for path, key in ((settings.nats_creds, "nkey.seed"), (settings.nats_ca, "ca.crt")):
            assert path is not None
            assert files[path.removeprefix(folder)] == (f"aim-nats-{component}", key)


def test_one_process_has_the_variables_of_all_services() -> None:
    variables = [
        env_of(workloads("dev")[f"aim-{service}"]["spec"]["template"]["spec"])
        for service in SERVICES
    ]
    together = env_of(workloads("all-in-one")[TOGETHER]["spec"]["template"]["spec"])
    expected = {name: value for each in variables for name, value in each.items()}
    paths = {"AIM_NATS_CREDS", "AIM_NATS_CA"}
    assert together.keys() == expected.keys()
    assert {name for name in expected if together[name] != expected[name]} == paths


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("services.cacher.env.A=1,services.router.env.A=2", r"services\.router\.env\.A"),
        (
            "services.cacher.jobResources.limits.memory=1Gi,"
            "services.discovery.jobResources.limits.memory=2Gi",
            r"services\.discovery\.jobResources",
        ),
    ],
    ids=["env", "job-resources"],
)
def test_one_process_cannot_have_two_values_of_a_variable(values: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        render(CHART, ALL_IN_ONE, f"--set={values}")


def test_an_external_server_gets_keys_only_where_enabled() -> None:
    assert all(
        "secret" not in volume for spec in pod_specs("external-nats") for volume in spec["volumes"]
    )
    for body in render(CHART, f"{EXTERNAL},nats.auth.enabled=true"):
        if body["kind"] == "Deployment":
            assert "AIM_NATS_CREDS" in env_of(body["spec"]["template"]["spec"])
        assert body["kind"] != "Job"


@every
def test_a_job_creates_the_mounted_keys_and_reads_no_other(installation: str) -> None:
    """Without keys, or with an external server, none of these objects exists."""
    found = [body for body in of(installation) if body["metadata"]["name"].startswith(INIT)]
    if installation in {"external-nats", "no-keys"}:
        assert found == []
        return
    kinds = sorted(body["kind"] for body in found)
    assert kinds == ["Job", "NetworkPolicy", "Role", "RoleBinding", ACCOUNT]
    (role,) = [body for body in found if body["kind"] == "Role"]
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": role["rules"][1]["resourceNames"],
            "verbs": ["get", "patch"],
        },
    ]
    assert sorted(role["rules"][1]["resourceNames"]) == sorted(names())
    (job,) = jobs(installation)
    assert "helm.sh/hook" not in str(job)
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == INIT
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["nats-init"]
    mounted = {
        volume["secret"]["secretName"]
        for spec in pod_specs(installation)
        for volume in spec["volumes"]
        if "secret" in volume
    }
    assert mounted <= set(desired_secrets({}, NAMESPACE, (), datetime.now(UTC), unattended=True))


def test_the_job_is_another_one_where_its_pod_or_the_chart_is(tmp_path: Path) -> None:
    """A Job's pod cannot be changed; and every version completes what it needs."""
    (first,) = [job["metadata"]["name"] for job in jobs("dev")]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert re.fullmatch(rf"aim-nats-init-{version.replace('.', '-')}-[0-9a-f]{{8}}", first)
    names_of = {
        name: job["metadata"]["name"]
        for name in ("production", "everything", "openshift")
        for job in jobs(name)
    }
    assert names_of["production"] == first
    assert len({*names_of.values()}) == len(names_of)
    newer = tmp_path / "aim"
    shutil.copytree(CHART, newer)
    (newer / "Chart.yaml").write_text(
        (CHART / "Chart.yaml")
        .read_text()
        .replace(f"\nversion: {version}", "\nversion: 10.20.30-RC.1+build.7")
    )
    (job,) = [body["metadata"]["name"] for body in render(newer) if body["kind"] == "Job"]
    assert re.fullmatch(r"aim-nats-init-10-20-30-rc-1-build-7-[0-9a-f]{8}", job)


def test_the_image_of_nats_may_be_named_by_digest() -> None:
    image = f"docker.io/library/nats:2.15.1-alpine@sha256:{'0' * 64}"
    (nats,) = [
        body for body in render(CHART, f"--set=nats.image={image}") if body["kind"] == "StatefulSet"
    ]
    assert nats["spec"]["template"]["spec"]["containers"][0]["image"] == image


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        pytest.param(
            "", {"max_file_store": 9126805504, "max_memory_store": 268435456}, id="defaults"
        ),
        pytest.param(
            "nats.storage.size=100Gi",
            {"max_file_store": 91268055040, "max_memory_store": 268435456},
            id="a-large-volume",
        ),
        pytest.param(
            "nats.storage.size=4G",
            {"max_file_store": 3400000000, "max_memory_store": 268435456},
            id="decimal",
        ),
        pytest.param(
            "nats.resources.limits.memory=2147483648",
            {"max_file_store": 9126805504, "max_memory_store": 536870912},
            id="in-bytes",
        ),
        pytest.param(
            "nats.resources.limits.memory=1.5Gi",
            {"max_file_store": 9126805504, "max_memory_store": 402653184},
            id="fraction",
        ),
        pytest.param(
            "nats.resources.limits.memory=null", {"max_file_store": 9126805504}, id="no-limit"
        ),
    ],
)
def test_nats_respects_its_volume_and_limit_not_the_machine(
    values: str, limits: dict[str, int]
) -> None:
    (nats,) = [
        body
        for body in render(CHART, *([f"--set={values}"] if values else []))
        if body["kind"] == "StatefulSet"
    ]
    text = nats["spec"]["template"]["metadata"]["annotations"]["aim.silogen.ai/nats.conf"]
    assert {
        name: int(number) for name, number in re.findall(r"(max_\w+_store): (\d+)\n", text)
    } == limits


def test_with_a_nats_of_ones_own_nothing_of_nats_is_installed() -> None:
    assert [
        place_of(body) for body in of("external-nats") if NATS in body["metadata"]["name"]
    ] == []
    assert {env_of(spec)["AIM_NATS_URL"] for spec in pod_specs("external-nats")} == {
        "tls://nats.example.org:4222"
    }


@every
def test_only_listed_traffic_passes_and_discovery_alone_gets_out(
    installation: str,
) -> None:
    policies = by_kind(installation, "NetworkPolicy")
    assert policies["aim-deny"]["spec"].keys() == {"podSelector", "policyTypes"}
    for name, body in workloads(installation).items():
        labels = body["spec"]["template"]["metadata"]["labels"]
        applied = {
            policy
            for policy, found in policies.items()
            if selects(found["spec"]["podSelector"], labels)
        }
        of_nats = {NATS} if name == NATS else {"aim-services"}
        gets_out = name in {"aim-discovery", TOGETHER}
        of_discovery = {"aim-discovery-registry"} if gets_out else set()
        assert applied == {"aim-deny"} | of_nats | of_discovery
    everywhere = {name for name, found in policies.items() if "0.0.0.0/0" in str(found)}
    assert everywhere == {"aim-discovery-registry"}


def selects(selector: Body, labels: Body) -> bool:
    """Kubernetes, LabelSelector; of the expressions, In."""
    listed = all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )
    return listed and (selector.get("matchLabels") or {}).items() <= labels.items()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(
            "services.watcher.evn.X=1",
            "services.watcher: Additional property evn",
            id="a-field-there-is-not",
        ),
        pytest.param("replica=2", "Additional property replica", id="at-the-top"),
        pytest.param("log.level=LOUD", "log.level", id="a-word-there-is-not"),
        pytest.param("nats.replicas=2", "nats.replicas", id="no-majority"),
        pytest.param("nats.streamReplicas=3", "nats.streamReplicas", id="more-copies-than-servers"),
        pytest.param("nats.bundled=false", "nats.url", id="no-server"),
        pytest.param("nats.url=nats://elsewhere:4222", "nats.url", id="two-servers"),
        pytest.param("image.tag=latest", "image.tag", id="not-pinned"),
        pytest.param(
            "nats.maxBytes=9000000000",
            "nats.maxBytes: the log, its mirror and the history may use 18268435456 bytes, but",
            id="more-than-the-volume",
        ),
        pytest.param(
            "nats.storage.size=1Gi",
            "nats.maxBytes: the log, its mirror and the history may use 2415919104 bytes, but",
            id="less-than-the-log",
        ),
        pytest.param("nats.auth.enabled=maybe", "nats.auth.enabled", id="neither-on-nor-off"),
        pytest.param("nats.storage.size=10GB", "nats.storage.size", id="no-quantity"),
        pytest.param("podSecurity=baseline", "podSecurity", id="no-pod-security"),
        pytest.param("kserveMode=Serverless", "kserveMode", id="no-kserve-mode"),
        pytest.param("routing.anyPath=some", "routing.anyPath", id="neither-any-path-nor-not"),
        pytest.param("routing.hosts.team=a", "routing.hosts.team", id="no-list-of-hosts"),
        pytest.param(
            "caBundle.name=ca", "caBundle: Additional property name", id="a-field-of-the-bundle"
        ),
        pytest.param(
            "caBundle.configMapName=No Name", "caBundle.configMapName", id="no-name-of-a-configmap"
        ),
        pytest.param(
            "services.cacher.jobResources.memory=1Gi",
            "services.cacher.jobResources: Additional property memory",
            id="no-resources",
        ),
        pytest.param(
            "services.router.jobResources.limits.cpu=1",
            "services.router: Additional property jobResources",
            id="makes-no-jobs",
        ),
        pytest.param("namespaces=team-a", "namespaces", id="no-list"),
        pytest.param("namespaces={Team}", "namespaces", id="no-name-of-a-namespace"),
        pytest.param("namespaces={a,a}", "namespaces", id="a-namespace-twice"),
        pytest.param(
            "services.discovery.pullSecrets={aim-nats-watcher}",
            "services.discovery.pullSecrets",
            id="a-secret-of-nats",
        ),
        pytest.param(
            "services.discovery.pullSecrets={}", "services.discovery.pullSecrets", id="no-name"
        ),
        pytest.param(
            "services.cacher.pullSecrets={registries}",
            "services.cacher: Additional property pullSecrets",
            id="reads-no-secrets",
        ),
    ],
)
def test_a_mistaken_value_is_rejected_by_name(value: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(message)):
        render(CHART, f"--set={value}")


def test_values_of_an_older_release_render_the_same() -> None:
    """`helm upgrade --reuse-values` has no defaults of a newer chart."""
    none = (
        "admissionPolicy=null,nats.auth=null,podSecurity=null,caBundle=null,kserveMode=null,"
        "routing=null,"
        "services.discovery.jobResources=null,services.cacher.jobResources=null,"
        "namespaces=null,services.discovery.pullSecrets=null"
    )
    assert render(CHART, f"--set={none}") == list(of("dev"))


def test_helm_finds_nothing_to_complain_of() -> None:
    helm = str(Path(sys.executable).with_name("helm"))
    done = subprocess.run(
        [helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "[WARNING]" in done.stdout, "[ERROR]" in done.stdout) == (
        0,
        False,
        False,
    ), done.stdout


def test_the_package_has_the_kinds_and_roles_in_it(tmp_path: Path) -> None:
    """Not the links to them."""
    helm = str(Path(sys.executable).with_name("helm"))
    subprocess.run(
        [helm, "package", str(CHART), "--destination", str(tmp_path)],
        capture_output=True,
        check=True,
    )
    (package,) = tmp_path.iterdir()
    assert render(package) == list(of("dev"))


def test_a_pod_monitor_selects_the_services() -> None:
    (monitor,) = [
        body
        for body in render(CHART, "--set=metrics.podMonitor=true")
        if body["kind"] == "PodMonitor"
    ]
    chosen = {
        name
        for name, body in workloads("dev").items()
        if selects(monitor["spec"]["selector"], body["spec"]["template"]["metadata"]["labels"])
    }
    assert chosen == {f"aim-{service}" for service in SERVICES}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "http", "path": "/metrics"}
    assert (
        workloads("dev")["aim-watcher"]["spec"]["template"]["metadata"]["labels"][
            monitor["spec"]["jobLabel"]
        ]
        == "aim"
    )


def test_the_alerts_are_those_of_deploy() -> None:
    (rule,) = [
        body
        for body in render(CHART, "--set=metrics.alerts=true")
        if body["kind"] == "PrometheusRule"
    ]
    assert rule["spec"] == yaml.safe_load(
        (ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text()
    )


def test_the_kustomize_folders_are_what_make_chart_writes() -> None:
    written = {
        str(file.relative_to(KUSTOMIZE)): file.read_text() for file in KUSTOMIZE.rglob("*.yaml")
    }
    assert written == folders(CHART), "deploy/kustomize is out of date: make chart"


def built(folder: str) -> dict[tuple[str, str, str], Body]:
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    done = subprocess.run(
        [kubectl, "kustomize", str(KUSTOMIZE / folder)], capture_output=True, text=True, check=True
    )
    return {place_of(body): body for body in documents(done.stdout)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_installs_what_helm_does(overlay: str) -> None:
    """All but the Namespace, which helm makes by itself; the kinds from their folder."""
    found = built("crds") | built(f"overlays/{overlay}")
    assert (
        found.pop(("Namespace", "", NAMESPACE))["metadata"]["labels"][
            "pod-security.kubernetes.io/enforce"
        ]
        == "restricted"
    )
    assert found == {place_of(body): without_helm(body) for body in of(overlay)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_deleting_an_overlay_leaves_the_kinds(overlay: str) -> None:
    """With a kind go all its objects: every model and cache of the cluster."""
    assert [place for place in built(f"overlays/{overlay}") if place[0] == DEFINITION] == []
    assert {place[0] for place in built("crds")} == {DEFINITION}


@pytest.mark.parametrize(
    ("page", "heading", "finds"),
    [
        pytest.param("how-to/install.md", "## Other clusters", "AIM_CA_BUNDLE", id="a-ca-bundle"),
        pytest.param(
            "how-to/upgrade.md", "Volumes of NATS", "storage: 4Gi", id="the-size-of-0.1.0"
        ),
    ],
)
def test_an_overlay_that_a_page_shows_can_be_built(
    tmp_path: Path, page: str, heading: str, finds: str
) -> None:
    text = (ROOT / "docs" / page).read_text().partition(heading)[2]
    (shown,) = re.findall(r"^    resources: .*\n(?:    .*\n)+", text, re.MULTILINE)
    shutil.copytree(KUSTOMIZE, tmp_path / "kustomize")
    own = tmp_path / "kustomize" / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(textwrap.dedent(shown))
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    done = subprocess.run(
        [kubectl, "kustomize", str(own)], capture_output=True, text=True, check=True
    )
    assert finds in done.stdout
