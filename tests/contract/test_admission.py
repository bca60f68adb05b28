"""What the API server rejects and accepts once deploy/crds is applied: one manifest for each rule
about the five kinds."""

import asyncio
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from aimkube import Cluster, Invalid, KubeError, NotFound
from aimlab.apiserver import ApiServer
from aimschema.resources import (
    AIM_GROUP,
    AIM_KINDS,
    AIM_VERSION,
    CACHE,
    MODEL,
    RESOURCES,
    SERVICE,
    TEMPLATE,
)

CRDS = Path(__file__).parents[2] / "deploy" / "crds"
NAMESPACE = "ml"
pytestmark = pytest.mark.asyncio(loop_scope="module")

Body = dict[str, Any]

SPECS: dict[str, Body] = {
    "AIMClusterModel": {
        "name": "meta/llama-3-8b:1.1+20240915",
        "image": "registry.example/llama:1",
    },
    "AIMNamespaceConfig": {"routing": {"gateway": {"name": "inference"}}},
    "AIMServiceTemplate": {
        "model": "meta/llama",
        "metric": "latency",
        "gpusPerReplica": 2,
        "gpuModel": "MI300X",
        "tensorParallelism": 2,
    },
    "AIMService": {"model": "meta/llama", "templateRef": "llama"},
    "ModelCache": {"sourceUri": "hf://org/model"},
}


def body(kind: str, name: str = "a", /, **changed: Any) -> Body:
    """A valid object of the kind; `changed` fields of its spec, None: left out."""
    spec = {
        field: value
        for field, value in {**copy.deepcopy(SPECS[kind]), **changed}.items()
        if value is not None
    }
    metadata = {"name": name, **({"namespace": NAMESPACE} if RESOURCES[kind].namespaced else {})}
    return {
        "apiVersion": f"{AIM_GROUP}/{AIM_VERSION}",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def gateway(**reference: Any) -> Body:
    return {"routing": {"gateway": reference}}


async def _applied(cluster: Cluster) -> None:
    """The namespace and the CRDs, once they are served."""
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for file in sorted(CRDS.iterdir()):
        await cluster.apply(yaml.safe_load(file.read_text()), manager="kubectl")
    async with asyncio.timeout(10):
        for resource in AIM_KINDS:
            while not await _served(cluster, resource.kind):  # noqa: ASYNC110 (no watch event)
                await asyncio.sleep(0.01)


async def _served(cluster: Cluster, kind: str) -> bool:
    try:
        await cluster.list(RESOURCES[kind])
    except NotFound:
        return False
    return True


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with ApiServer() as server:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": server.url}}],
            "users": [{"name": "lab", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        }
        path = tmp_path_factory.mktemp("admission") / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        connected = await Cluster.connect(str(path))
        try:
            await _applied(connected)
            yield connected
        finally:
            await connected.close()


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(served: Cluster) -> AsyncIterator[Cluster]:
    """The kinds are served and there is no object of them."""
    yield served
    for resource in AIM_KINDS:
        for item in (await served.list(resource)).items:
            await served.delete(
                resource, item["metadata"].get("namespace"), item["metadata"]["name"]
            )


def download(**options: Any) -> Body:
    return body("AIMNamespaceConfig", caching={"download": options})


LOADERS = (
    *("PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME"),
    *("GCONV_PATH", "OPENSSL_CONF", "SSLKEYLOGFILE", "AWS_CONFIG_FILE", "BASH_ENV", "ENV"),
    *("AIM_TERMINATION_LOG", "AIM_INCLUDE", "AIM_S3_0_ENDPOINT_URL"),
    *("pythonpath", "Ld_Preload", "path", "aim_x", "PYTHON", "LD_"),
)
DOWNLOADS_REJECTED = [
    *(
        pytest.param(
            download(env=[{"name": "A"}, {"name": name, "value": "x"}]),
            "spec.caching.download.env[1].name",
            "remove the variable",
            id=f"download-env-{name}",
        )
        for name in LOADERS
    ),
    *(
        pytest.param(download(resources=resources), field, fragment, id=f"download-resources-{id_}")
        for id_, resources, field, fragment in (
            ("gpu", {"limits": {"amd.com/gpu": 1}}, "resources.limits", "only cpu, memory"),
            ("negative", {"requests": {"cpu": "-1"}}, "resources.requests", "at least 0"),
            ("no-quantity", {"requests": {"memory": "much"}}, "resources.requests", "quantities"),
            (
                "above-limit",
                {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}},
                "resources.requests",
                "greater than limits",
            ),
        )
    ),
    pytest.param(
        download(caBundle={"configMapName": "ca"}), "caBundle.key", "Required", id="ca-without-key"
    ),
    pytest.param(
        download(caBundle={"configMapName": "ca", "key": "../x"}),
        "caBundle.key",
        "should match",
        id="ca-key-that-is-a-path",
    ),
    *(
        pytest.param(
            body("AIMNamespaceConfig", caching={field: value}),
            f"spec.caching.{field}",
            fragment,
            id=f"{field}-{value}",
        )
        for field, value, fragment in (
            ("quota", "0", "greater than 0"),
            ("quota", -1, "greater than 0"),
            ("quota", "much", "quantity"),
            ("evictAfter", "30d", "should match"),
            ("evictAfter", "-1h", "should match"),
            ("evictAfter", "", "should match"),
            ("evictAfter", "0h0m", "greater than 0"),
        )
    ),
    pytest.param(download(include=[""]), "include[0]", "at least 1", id="empty-glob"),
    pytest.param(download(exclude=["*"] * 65), "exclude", "64", id="too-many-globs"),
    pytest.param(
        body("AIMNamespaceConfig", caching={"accessMode": "ReadOnlyMany"}),
        "spec.caching.accessMode",
        "ReadWriteOnce",
        id="other-access-mode",
    ),
    pytest.param(
        body("AIMNamespaceConfig", credentials={"s3": [{"addressingStyle": "dns"}]}),
        "spec.credentials.s3[0].addressingStyle",
        "virtual",
        id="other-addressing-style",
    ),
]
DOWNLOADS: Body = {
    "env": [
        *({"name": name, "value": "x"} for name in ("HF_ENDPOINT", "https_proxy", "MY_PATH")),
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ],
    "caBundle": {"configMapName": "corporate", "key": "ca.crt"},
    "serviceAccountName": "downloads",
    "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
    "include": ["*.safetensors", "*.json"],
    "exclude": [],
}
CACHING: Body = {
    "quota": "1.5Ti",
    "evictAfter": "720h30m",
    "accessMode": "ReadWriteOnce",
    "download": DOWNLOADS,
}


REJECTED = [
    *DOWNLOADS_REJECTED,
    pytest.param(
        body("AIMClusterModel", name=None), "spec.name", "Required", id="model-without-a-name"
    ),
    pytest.param(
        body("AIMClusterModel", image=None), "spec.image", "Required", id="model-without-an-image"
    ),
    pytest.param(
        body("AIMClusterModel", image=""),
        "spec.image",
        "at least 1",
        id="model-with-an-empty-image",
    ),
    pytest.param(
        body("AIMServiceTemplate", model=None),
        "spec.model",
        "Required",
        id="template-without-a-model",
    ),
    pytest.param(
        body("AIMServiceTemplate", metric=None),
        "spec.metric",
        "Required",
        id="template-without-a-metric",
    ),
    pytest.param(
        body("AIMServiceTemplate", gpusPerReplica=None),
        "spec.gpusPerReplica",
        "Required",
        id="template-without-gpus",
    ),
    pytest.param(
        body("AIMServiceTemplate", gpuModel=None),
        "spec.gpuModel",
        "Required",
        id="template-without-a-gpu-model",
    ),
    pytest.param(
        body("AIMServiceTemplate", tensorParallelism=None),
        "spec.tensorParallelism",
        "Required",
        id="template-without-parallelism",
    ),
    pytest.param(
        body("AIMServiceTemplate", metric="speed"), "spec.metric", "latency", id="unknown-metric"
    ),
    pytest.param(
        body("AIMServiceTemplate", precision="fp12"),
        "spec.precision",
        "fp16",
        id="unknown-precision",
    ),
    pytest.param(
        body("AIMServiceTemplate", gpusPerReplica=0),
        "spec.gpusPerReplica",
        "greater than or equal to 1",
        id="no-gpus",
    ),
    pytest.param(
        body("AIMServiceTemplate", gpuModel=""), "spec.gpuModel", "at least 1", id="empty-gpu-model"
    ),
    pytest.param(
        body("AIMServiceTemplate", tensorParallelism=0),
        "spec.tensorParallelism",
        "greater than or equal to 1",
        id="no-parallelism",
    ),
    pytest.param(
        body("AIMServiceTemplate", tensorParallelism=3),
        "spec.tensorParallelism",
        "gpusPerReplica",
        id="more-parallel-than-gpus",
    ),
    pytest.param(
        body("AIMService", model=None), "spec.model", "Required", id="service-without-a-model"
    ),
    pytest.param(
        body("AIMService", templateRef=None),
        "spec.templateRef",
        "Required",
        id="service-without-a-template",
    ),
    pytest.param(
        body("AIMService", replicas=-1),
        "spec.replicas",
        "greater than or equal to 0",
        id="negative-replicas",
    ),
    pytest.param(
        body("AIMService", "0a"),
        "metadata.name",
        "start with a letter",
        id="service-name-starts-with-a-digit",
    ),
    pytest.param(
        body("AIMService", "a.b"),
        "metadata.name",
        "letters, digits and '-'",
        id="service-name-with-a-dot",
    ),
    pytest.param(
        body("AIMService", "a" * 49), "metadata.name", "at most 48", id="service-name-too-long"
    ),
    pytest.param(
        body("AIMNamespaceConfig", **gateway(namespace="infra")),
        "spec.routing.gateway.name",
        "Required",
        id="gateway-without-a-name",
    ),
    pytest.param(
        body("AIMNamespaceConfig", **gateway(name="")),
        "spec.routing.gateway.name",
        "at least 1",
        id="gateway-with-an-empty-name",
    ),
    pytest.param(
        body("ModelCache", sourceUri=None),
        "spec.sourceUri",
        "Required",
        id="cache-without-a-source",
    ),
    pytest.param(
        body("ModelCache", sourceUri="https://host/a"),
        "spec.sourceUri",
        "should match",
        id="source-of-another-scheme",
    ),
    pytest.param(
        body("ModelCache", sourceUri="hf://"),
        "spec.sourceUri",
        "should match",
        id="source-without-a-path",
    ),
    pytest.param(
        body("ModelCache", sourceUri="s3:///key"),
        "spec.sourceUri",
        "should match",
        id="source-without-a-bucket",
    ),
    pytest.param(
        body("ModelCache", sourceUri="hf://a/b c"),
        "spec.sourceUri",
        "should match",
        id="source-with-a-space",
    ),
    pytest.param(
        body("ModelCache", sourceUri="hf://" + "a" * 1020),
        "spec.sourceUri",
        "1024",
        id="source-too-long",
    ),
    pytest.param(body("ModelCache", size="0"), "spec.size", "greater than 0", id="size-zero"),
    pytest.param(
        body("ModelCache", size=0), "spec.size", "greater than 0", id="size-zero-as-a-number"
    ),
    pytest.param(
        body("ModelCache", size="-1Gi"), "spec.size", "greater than 0", id="size-negative"
    ),
    pytest.param(body("ModelCache", size="much"), "spec.size", "quantity", id="size-no-quantity"),
    pytest.param(
        body("ModelCache", env=[{"value": "x"}]),
        "spec.env[0].name",
        "Required",
        id="variable-without-a-name",
    ),
    pytest.param(
        body("ModelCache", env=[{"name": "A"}, {"name": "A"}]),
        "spec.env[1]",
        "Duplicate",
        id="variable-twice",
    ),
    pytest.param(
        body("ModelCache", "c" * 55), "metadata.name", "at most 54", id="cache-name-too-long"
    ),
]


@pytest.mark.parametrize(("manifest", "field", "fragment"), REJECTED)
async def test_rejected_at_admission(
    cluster: Cluster, manifest: Body, field: str, fragment: str
) -> None:
    with pytest.raises(Invalid) as raised:
        await cluster.create(manifest)
    assert raised.value.status == 422
    text = f"{raised.value.message} {raised.value.causes}"
    assert field in text
    assert fragment in text


MOST_ANNOTATION_BYTES = 262144


def noted(bytes_: int) -> Body:
    """A service whose annotations are so long, names and values together."""
    found = body("AIMService")
    found["metadata"]["annotations"] = {"note": "x" * (bytes_ - len("note"))}
    return found


async def test_annotations_may_be_256_kib_long_and_no_longer(cluster: Cluster) -> None:
    with pytest.raises(Invalid, match="may not be more than 262144 bytes") as raised:
        await cluster.create(noted(MOST_ANNOTATION_BYTES + 1))
    assert "metadata.annotations" in raised.value.message
    created = await cluster.create(noted(MOST_ANNOTATION_BYTES))
    with pytest.raises(Invalid, match=r"metadata\.annotations"):
        await cluster.merge_patch(
            RESOURCES["AIMService"], NAMESPACE, "a", {"metadata": {"annotations": {"more": "y"}}}
        )
    assert len(created["metadata"]["annotations"]["note"]) == MOST_ANNOTATION_BYTES - len("note")


@pytest.mark.parametrize(
    "text", ["../../kube-system", "a/b", "a\x1b[2J", "[bold]", "x" * 64, "*.>", "-a", "\u202ea"]
)
async def test_a_workload_id_that_is_no_label_is_rejected(cluster: Cluster, text: str) -> None:
    manifest = body("AIMService")
    manifest["metadata"]["labels"] = {"aim.silogen.ai/workload-id": text}
    with pytest.raises(Invalid, match=r"metadata\.labels"):
        await cluster.create(manifest)


@pytest.mark.parametrize(
    "kind", ["AIMServiceTemplate", "ModelCache", "AIMNamespaceConfig", "AIMClusterModel"]
)
@pytest.mark.parametrize("name", ["a_b", "A", "ü", "a\x1b", "a..b", "-a", "x" * 254])
async def test_an_invalid_name_is_rejected(cluster: Cluster, kind: str, name: str) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await cluster.create(body(kind, name))


@pytest.mark.parametrize(
    ("manifest", "spec"),
    [
        pytest.param(
            body("AIMClusterModel", "llama.8b"),
            SPECS["AIMClusterModel"],
            id="model-name-with-a-dot",
        ),
        pytest.param(body("AIMNamespaceConfig", routing=None), {}, id="empty-config"),
        pytest.param(
            body("AIMNamespaceConfig"),
            {
                "routing": {
                    "autoCreateRoute": True,
                    "gateway": {
                        "group": "gateway.networking.k8s.io",
                        "kind": "Gateway",
                        "name": "inference",
                    },
                }
            },
            id="config-with-a-gateway",
        ),
        pytest.param(
            body(
                "AIMNamespaceConfig",
                routing=None,
                credentials={"s3": [{"addressingStyle": "virtual"}]},
                caching=CACHING,
            ),
            {
                "credentials": {"s3": [{"addressingStyle": "virtual"}]},
                "caching": CACHING,
            },
            id="config-with-all-options-of-downloads",
        ),
        pytest.param(
            body("AIMNamespaceConfig", routing={}),
            {"routing": {"autoCreateRoute": True}},
            id="routing-without-a-gateway",
        ),
        pytest.param(
            body("AIMServiceTemplate"),
            {**SPECS["AIMServiceTemplate"], "precision": "auto", "warmCache": False},
            id="template",
        ),
        pytest.param(
            body("AIMServiceTemplate", precision="fp8", tensorParallelism=1, warmCache=True),
            {
                **SPECS["AIMServiceTemplate"],
                "precision": "fp8",
                "tensorParallelism": 1,
                "warmCache": True,
            },
            id="template-with-all-given",
        ),
        pytest.param(
            body("AIMService"),
            {**SPECS["AIMService"], "cacheModel": True, "replicas": 1, "configRef": "default"},
            id="service",
        ),
        pytest.param(
            body("AIMService", "a" * 48, replicas=0, cacheModel=False, configRef="other"),
            {**SPECS["AIMService"], "cacheModel": False, "replicas": 0, "configRef": "other"},
            id="service-that-is-stopped-with-the-longest-name",
        ),
        pytest.param(
            body("ModelCache", "c" * 54), SPECS["ModelCache"], id="cache-with-the-longest-name"
        ),
        pytest.param(
            body("ModelCache", "c.d", size=1),
            {**SPECS["ModelCache"], "size": 1},
            id="cache-size-as-a-number",
        ),
        pytest.param(
            body(
                "ModelCache",
                sourceUri="s3://bucket/a/b",
                size="1.5Gi",
                env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            ),
            {
                "sourceUri": "s3://bucket/a/b",
                "size": "1.5Gi",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            },
            id="cache-with-all-given",
        ),
        pytest.param(
            body("ModelCache", unknown="x"), SPECS["ModelCache"], id="unknown-fields-are-pruned"
        ),
    ],
)
async def test_taken_with_its_defaults(cluster: Cluster, manifest: Body, spec: Body) -> None:
    assert (await cluster.create(manifest))["spec"] == spec


PRECISIONS = ["auto", "fp4", "fp8", "fp16", "fp32", "bf16", "int4", "int8"]


async def test_all_eight_precisions_are_taken(cluster: Cluster) -> None:
    for precision in PRECISIONS:
        await cluster.create(body("AIMServiceTemplate", f"t-{precision}", precision=precision))


async def test_a_config_needs_no_spec(cluster: Cluster) -> None:
    bare = body("AIMNamespaceConfig")
    del bare["spec"]
    await cluster.create(bare)


@pytest.mark.parametrize(
    ("kind", "field", "to"),
    [
        ("AIMServiceTemplate", "model", "other"),
        ("AIMServiceTemplate", "metric", "throughput"),
        ("AIMServiceTemplate", "precision", "fp8"),
        ("AIMServiceTemplate", "gpusPerReplica", 4),
        ("AIMServiceTemplate", "gpuModel", "MI325X"),
        ("AIMServiceTemplate", "tensorParallelism", 1),
        ("ModelCache", "sourceUri", "hf://org/other"),
    ],
)
async def test_immutable(cluster: Cluster, kind: str, field: str, to: Any) -> None:
    await cluster.create(body(kind))
    with pytest.raises(Invalid) as raised:
        await cluster.merge_patch(RESOURCES[kind], NAMESPACE, "a", {"spec": {field: to}})
    assert f"spec.{field}" in f"{raised.value.message} {raised.value.causes}"
    assert f"{field} is immutable" in raised.value.message


async def test_omission_does_not_reset_an_immutable_default(
    cluster: Cluster,
) -> None:
    await cluster.create(body("AIMServiceTemplate", precision="fp8"))
    with pytest.raises(Invalid, match="precision is immutable"):
        await cluster.merge_patch(TEMPLATE, NAMESPACE, "a", {"spec": {"precision": None}})


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("AIMClusterModel", {"image": "registry.example/llama:2"}),
        ("AIMServiceTemplate", {"warmCache": True}),
        ("AIMService", {"replicas": 3, "templateRef": "other"}),
        ("ModelCache", {"size": "30Gi", "storageClassName": "fast"}),
    ],
)
async def test_the_rest_may_be_changed(cluster: Cluster, kind: str, patch: Body) -> None:
    resource = RESOURCES[kind]
    await cluster.create(body(kind))
    changed = await cluster.merge_patch(
        resource, NAMESPACE if resource.namespaced else None, "a", {"spec": patch}
    )
    assert changed["spec"].items() >= patch.items()


def condition(generation: int | None, **changed: Any) -> Body:
    observed = {} if generation is None else {"observedGeneration": generation}
    return (
        {
            "type": "Ready",
            "status": "True",
            "reason": "Ok",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        | observed
        | changed
    )


async def _with_status(cluster: Cluster, kind: str, status: Body) -> Body:
    resource = RESOURCES[kind]
    namespace = NAMESPACE if resource.namespaced else None
    return await cluster.merge_patch(
        resource, namespace, "a", {"status": status}, subresource="status"
    )


WITH_STATUS = [MODEL.kind, TEMPLATE.kind, SERVICE.kind, CACHE.kind]


@pytest.mark.parametrize("kind", WITH_STATUS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"observedGeneration": 3}, {"observedGeneration": 2}, id="of-the-status"),
        pytest.param(
            {"observedGeneration": 3},
            {"observedGeneration": None},
            id="of-the-status-by-leaving-it-out",
        ),
        pytest.param(
            {"conditions": [condition(3)]}, {"conditions": [condition(2)]}, id="of-a-condition"
        ),
        pytest.param(
            {"conditions": [condition(3)]},
            {"conditions": [condition(None)]},
            id="of-a-condition-by-leaving-it-out",
        ),
    ],
)
async def test_observed_generation_never_goes_back(
    cluster: Cluster, kind: str, before: Body, after: Body
) -> None:
    await cluster.create(body(kind))
    await _with_status(cluster, kind, before)
    with pytest.raises(Invalid, match="observedGeneration must not decrease"):
        await _with_status(cluster, kind, after)


@pytest.mark.parametrize("kind", WITH_STATUS)
async def test_a_status_goes_on(cluster: Cluster, kind: str) -> None:
    await cluster.create(body(kind))
    await _with_status(cluster, kind, {"observedGeneration": 1, "conditions": [condition(1)]})
    written = await _with_status(
        cluster,
        kind,
        {
            "observedGeneration": 2,
            "conditions": [condition(1, status="False"), condition(2, type="Other")],
        },
    )
    assert [c["status"] for c in written["status"]["conditions"]] == ["False", "True"]
    assert written["status"].get("status") == (None if kind == MODEL.kind else "Pending")


@pytest.mark.parametrize(
    ("status", "field"),
    [
        pytest.param({"conditions": [condition(1, reason="")]}, "reason", id="empty-reason"),
        pytest.param(
            {"conditions": [condition(1, reason="not camel case")]}, "reason", id="reason-in-words"
        ),
        pytest.param({"conditions": [condition(1, status="Maybe")]}, "status", id="unknown-status"),
        pytest.param({"conditions": [condition(1), condition(1)]}, "conditions", id="type-twice"),
        pytest.param({"status": "Sleeping"}, "status", id="unknown-state"),
    ],
)
async def test_an_invalid_status_is_rejected(cluster: Cluster, status: Body, field: str) -> None:
    await cluster.create(body(CACHE.kind))
    with pytest.raises(KubeError) as raised:
        await _with_status(cluster, CACHE.kind, status)
    assert raised.value.status == 422
    assert f"status.{field}" in raised.value.message or field in str(raised.value.causes)


async def test_status_is_not_written_with_the_spec(cluster: Cluster) -> None:
    created = await cluster.create(body(CACHE.kind) | {"status": {"observedGeneration": 9}})
    assert "status" not in created
