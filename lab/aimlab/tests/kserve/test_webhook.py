"""The KServe stand-in as a process, asked by the API server before an InferenceService is
stored."""

import sys
from typing import Any

import pytest

from aimctl.local.processes import Children
from aimkube import Cluster, Forbidden, KubeError
from aimlab.crds import bundled_crds
from aimlab.kserve.modes import MODE_ANNOTATION, ONLY_RAW
from aimlab.kserve.webhook import CONFIGURATION, WEBHOOK
from aimlab.testing import NAMESPACE, Wait, eventually
from aimschema.resources import INFERENCE_SERVICE

Body = dict[str, Any]
pytest_plugins = ["aimlab.testing.fixtures"]


def isvc(name: str, mode: str) -> Body:
    predictor = {
        "containers": [{"name": "kserve-container", "image": "x:1"}],
        "deploymentStrategy": {"type": "Recreate"},
    }
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": {MODE_ANNOTATION: mode}}
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


async def start(cluster: Cluster, children: Children, kubeconfig: str, version: str) -> None:
    """KServe of this version, once it is asked."""
    for crd in bundled_crds():
        await cluster.create(crd)
    await children.start(
        "kserve",
        [
            sys.executable,
            "-m",
            "aimlab.kserve",
            "--kubeconfig",
            kubeconfig,
            "--version",
            version,
            "--webhook",
        ],
    )

    async def is_configured() -> bool:
        return bool((await cluster.list(CONFIGURATION)).items)

    await eventually(is_configured, "the webhook's configuration")


@pytest.mark.parametrize(
    "modes",
    [("0.16", "Standard", "RawDeployment"), ("0.15", "RawDeployment", "Standard")],
    ids=lambda modes: modes[0],
)
async def test_each_version_takes_its_own_word(
    cluster: Cluster, children: Children, kubeconfig: str, until: Wait, modes: tuple[str, str, str]
) -> None:
    version, right, wrong = modes
    await start(cluster, children, kubeconfig, version)
    with pytest.raises(Forbidden) as denied:
        await cluster.create(isvc("wrong", wrong))
    assert denied.value.message == f'admission webhook "{WEBHOOK}" denied the request: {ONLY_RAW}'
    await cluster.create(isvc("right", right))
    made = await until(
        INFERENCE_SERVICE, "right", lambda body: bool(body.get("status", {}).get("deploymentMode"))
    )
    assert made["status"]["deploymentMode"] == right


async def test_without_kserve_its_webhook_is_down(
    cluster: Cluster, children: Children, kubeconfig: str
) -> None:
    await start(cluster, children, kubeconfig, "0.16")
    await children.kill("kserve")
    with pytest.raises(KubeError, match="failed calling webhook"):
        await cluster.create(isvc("not-called", "Standard"))
