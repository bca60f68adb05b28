"""An InferenceService becomes ready and answers through the gateway's route: the whole laptop
cluster but the control plane."""

import hashlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimctl.local.processes import Children
from aimkube import Cluster
from aimlab.apiserver import ApiServer
from aimlab.crds import bundled_crds
from aimlab.gateway.traefik import Api, Gateway, traefik
from aimlab.kinds import SERVICE, is_true
from aimlab.node.images import ImageCommand, read_images, write_images
from aimlab.testing import NAMESPACE, Wait, eventually
from aimschema.resources import DEPLOYMENT, GATEWAY, INFERENCE_SERVICE, POD, ROUTE

Body = dict[str, Any]
MODEL = "lab/tiny"
MADE = (DEPLOYMENT, SERVICE, POD)
pytest_plugins = ["aimlab.testing.fixtures"]


def model_folder(folder: Path) -> dict[str, str]:
    """A model with two parameters, with the downloader's manifest; gives the sums."""
    folder.mkdir(parents=True)
    header = json.dumps(
        {"weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(8)
    )
    (folder / "vocab.txt").write_text("[UNK]\nhello\nworld\n!\n")
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    entries = [
        {"path": name, "size_bytes": 1, "sha256": digest, "tag": ""}
        for name, digest in sums.items()
    ]
    (folder / ".aim-manifest.json").write_text(
        json.dumps({"uri": "s3://models/lab/tiny", "revision": "1", "files": entries})
    )
    return sums


def inference_service(replicas: int = 1) -> Body:
    get = {"path": "/health", "port": 8000}
    container = {
        "image": "model:1",
        "ports": [{"name": "http", "containerPort": 8000}],
        "env": [{"name": "AIM_CACHE_PATH", "value": "/workspace/model-cache"}],
        "resources": {"limits": {"amd.com/gpu": "1"}},
        "volumeMounts": [
            {"name": "cache", "mountPath": "/workspace/model-cache/lab/tiny", "readOnly": True}
        ],
        "startupProbe": {"httpGet": get, "periodSeconds": 10, "failureThreshold": 180},
        "readinessProbe": {"httpGet": get},
    }
    volumes = [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}]
    head = {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": "InferenceService",
        "metadata": {"name": "tiny", "namespace": NAMESPACE},
    }
    return head | {
        "spec": {
            "predictor": {"minReplicas": replicas, "containers": [container], "volumes": volumes}
        }
    }


def route() -> Body:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/demo/tiny"}}],
        "filters": [
            {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
            }
        ],
        "backendRefs": [{"name": "tiny-predictor", "port": 80}],
    }
    head = {
        "apiVersion": ROUTE.api_version,
        "kind": "HTTPRoute",
        "metadata": {"name": "tiny", "namespace": NAMESPACE},
    }
    return head | {
        "spec": {"parentRefs": [{"name": "aim-gateway", "namespace": NAMESPACE}], "rules": [rule]}
    }


@pytest.fixture
async def gateway(
    cluster: Cluster, api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """The token of this cluster, whatever the environment names and the working directory holds:
    Traefik takes a token for the path of a file if there is one of that name."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "of-another-cluster"))
    (tmp_path / "checkout" / "lab").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "checkout")
    for crd in bundled_crds():
        await cluster.create(crd)
    async with traefik(
        cluster, Api(api.url, token="lab"), namespace=NAMESPACE, folder=tmp_path / "logs"
    ) as running:
        yield running


@pytest.fixture
async def lab(node: Children, kubeconfig: str, images: Path, tmp_path: Path) -> dict[str, str]:
    """Node, KServe and the image of a model; the sums of the model's files."""
    sums = model_folder(tmp_path / "state" / "filled")
    (tmp_path / "sums.json").write_text(json.dumps(sums))
    command = (
        sys.executable,
        "-m",
        "aimlab.model_image",
        "--source",
        "s3://models/lab/tiny",
        "--name",
        MODEL,
        "--sums",
        str(tmp_path / "sums.json"),
    )
    write_images(images, read_images(images) | {"model:1": ImageCommand(command)})
    await node.start("kserve", [sys.executable, "-m", "aimlab.kserve", "--kubeconfig", kubeconfig])
    return sums


async def ask(gateway: Gateway, prompt: str) -> tuple[int, Body]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
    async with (
        aiohttp.ClientSession(trust_env=False) as client,
        client.post(f"{gateway.url}/demo/tiny/v1/chat/completions", json=body) as answer,
    ):
        return (
            answer.status,
            await answer.json() if answer.content_type == "application/json" else {},
        )


async def answers(gateway: Gateway) -> bool:
    return (await ask(gateway, "Hello"))[0] == 200


async def fill_claim(cluster: Cluster, until: Wait, tmp_path: Path) -> None:
    """A bound claim with the model in it."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "cache", "namespace": NAMESPACE},
    }
    await cluster.create(
        claim
        | {
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            }
        }
    )
    filling: Body = {
        "name": "fill",
        "image": "shell",
        "args": ["-c", f"cp -r {tmp_path}/state/filled/. $0", "/cache"],
    }
    filling["volumeMounts"] = [{"name": "cache", "mountPath": "/cache"}]
    spec = {
        "restartPolicy": "Never",
        "containers": [filling],
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}],
    }
    await cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "fill", "namespace": NAMESPACE},
            "spec": spec,
        }
    )
    await until(POD, "fill", lambda body: body.get("status", {}).get("phase") == "Succeeded")


async def test_a_ready_inference_service_answers_through_the_gateway(
    cluster: Cluster, gateway: Gateway, lab: dict[str, str], until: Wait, tmp_path: Path
) -> None:
    await fill_claim(cluster, until, tmp_path)
    made = await cluster.create(inference_service())
    container = made["spec"]["predictor"]["containers"][0]
    assert (
        container["name"],
        container["ports"][0]["protocol"],
        container["resources"]["requests"]["memory"],
    ) == ("kserve-container", "TCP", "2Gi")
    await cluster.create(route())

    ready = await until(INFERENCE_SERVICE, "tiny", lambda body: is_true(body, "Ready"))
    assert ready["status"]["address"]["url"] == "http://tiny-predictor.demo.svc.cluster.local"
    assert ready["status"]["modelStatus"]["transitionStatus"] == "UpToDate"
    programmed = await until(GATEWAY, "aim-gateway", lambda body: is_true(body, "Programmed"))
    assert programmed["status"]["addresses"] == [{"type": "IPAddress", "value": "127.0.0.1"}]
    accepted = await until(ROUTE, "tiny", lambda body: bool(body.get("status", {}).get("parents")))
    assert {
        one["type"]: one["status"] for one in accepted["status"]["parents"][0]["conditions"]
    } == {"Accepted": "True", "ResolvedRefs": "True"}

    await eventually(lambda: answers(gateway), "the route answers")
    _, body = await ask(gateway, "Hello, world!")
    assert body["usage"]["prompt_tokens"] == 4
    assert lab["model.safetensors"] in body["choices"][0]["message"]["content"]
    assert "2 parameters" in body["choices"][0]["message"]["content"]

    await cluster.merge_patch(
        INFERENCE_SERVICE,
        NAMESPACE,
        "tiny",
        {"metadata": {"annotations": {"serving.kserve.io/stop": "true"}}},
    )
    stopped = await until(INFERENCE_SERVICE, "tiny", lambda body: is_true(body, "Stopped"))
    assert not is_true(stopped, "Ready")

    async def is_empty() -> bool:
        made = [
            await cluster.list(
                kind, NAMESPACE, label_selector="serving.kserve.io/inferenceservice=tiny"
            )
            for kind in MADE
        ]
        return not any(listing.items for listing in made)

    await eventually(is_empty, "Deployment, Service and pods go")


async def test_an_incomplete_model_is_never_ready_and_names_the_file(
    cluster: Cluster, gateway: Gateway, lab: dict[str, str], until: Wait, tmp_path: Path
) -> None:
    (tmp_path / "state" / "filled" / "vocab.txt").write_text("[UNK]\nhallo\n")
    await fill_claim(cluster, until, tmp_path)
    await cluster.create(inference_service())
    failed = await until(
        INFERENCE_SERVICE,
        "tiny",
        lambda body: (
            body.get("status", {}).get("modelStatus", {}).get("transitionStatus")
            == "BlockedByFailedLoad"
        ),
    )
    assert not is_true(failed, "Ready")
    assert (
        "tiny/vocab.txt: sha256 is" in failed["status"]["modelStatus"]["lastFailureInfo"]["message"]
    )
