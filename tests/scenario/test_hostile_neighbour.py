"""A namespace full of hostile objects, with the names of another namespace: that one runs as if
alone, and all messages are printable."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aimkube import Cluster, Invalid
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl_env
from aimlab.cli.quickstart import MODEL, NAMESPACE, SERVICE, TEMPLATE
from aimlab.testing import eventually
from aimschema import labels
from aimschema.resources import (
    CACHE,
    CONFIG,
    EVENT,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    ROUTE,
    Resource,
)
from aimschema.resources import NAMESPACE as NAMESPACE_KIND
from aimschema.resources import SERVICE as SERVICE_KIND
from aimschema.resources import TEMPLATE as TEMPLATE_KIND

Body = dict[str, Any]
pytestmark = pytest.mark.timeout(120)
HOSTILE = "h" * 62 + "z"
EVIL = "\x1b[2J\x1b]0;owned\x07[bold]loud[/] \u202e<script>\nnext $(HF_TOKEN) ../../etc/passwd"
LARGEST_NOTE = "x" * (262144 - len("note"))
LONG_TEMPLATE = ".".join(["t" * 62] * 4) + "t"
LONG_SERVICE = "s" * 48
LONG_CACHE = "c" * 54
BIN = Path(sys.executable).parent


def made(resource: Resource, name: str, spec: Body, **metadata: Any) -> Body:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": HOSTILE, "annotations": {"note": EVIL}} | metadata,
        "spec": spec,
    }


def template(name: str, **metadata: Any) -> Body:
    spec = {
        "model": MODEL,
        "metric": "latency",
        "gpuModel": "MI300X",
        "gpusPerReplica": 1,
        "tensorParallelism": 1,
        "warmCache": True,
    }
    return made(TEMPLATE_KIND, name, spec, **metadata)


def service(name: str, template_ref: str, **metadata: Any) -> Body:
    return made(SERVICE_KIND, name, {"model": MODEL, "templateRef": template_ref}, **metadata)


async def hostile_namespace(cluster: Cluster) -> None:
    """All objects of the quickstart with the same names, and long, noisy or foreign ones."""
    await cluster.create(
        {"apiVersion": "v1", "kind": NAMESPACE_KIND.kind, "metadata": {"name": HOSTILE}}
    )
    with pytest.raises(Invalid, match=r"metadata\.annotations"):
        await cluster.create(service("too-long", TEMPLATE, annotations={"note": "x" * (1 << 20)}))
    conditions = [
        {"type": f"Type{number}", "status": "False", "reason": "Evil", "message": EVIL}
        for number in range(10_000)
    ]
    taken = await cluster.create(made(INFERENCE_SERVICE, SERVICE, {"predictor": {}}))
    await cluster.merge_patch(
        INFERENCE_SERVICE,
        HOSTILE,
        taken["metadata"]["name"],
        {"status": {"conditions": conditions}},
        subresource="status",
    )
    await cluster.create(
        made(
            GATEWAY,
            "evil",
            {
                "gatewayClassName": "unserved",
                "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}],
            },
        )
    )
    programmed = {
        "type": "Programmed",
        "status": "False",
        "reason": "Evil",
        "message": EVIL,
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }
    await cluster.merge_patch(
        GATEWAY, HOSTILE, "evil", {"status": {"conditions": [programmed]}}, subresource="status"
    )
    await cluster.create(made(CONFIG, "default", {"routing": {"gateway": {"name": "evil"}}}))
    await cluster.create(template(TEMPLATE))
    await cluster.create(template(LONG_TEMPLATE, annotations={"note": LARGEST_NOTE}))
    await cluster.create(service(SERVICE, TEMPLATE))
    await cluster.create(
        service(LONG_SERVICE, LONG_TEMPLATE, annotations={labels.ANNOTATION_ROUTE_TIMEOUT: EVIL})
    )
    env = [{"name": "NOTE", "value": EVIL}, {"name": labels.ENV_HF_TOKEN, "value": "the-secret"}]
    await cluster.create(
        made(
            CACHE,
            LONG_CACHE,
            {"sourceUri": "hf://org/$(HF_TOKEN)\x1b[2J", "size": "1Gi", "env": env},
        )
    )


async def kubectl(stack: Stack, *args: str) -> str:
    command = [str(BIN / "kubectl"), *args]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=kubectl_env(stack.lab),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{args}: {done.stderr}"
    return done.stdout


async def texts_of(cluster: Cluster, namespace: str) -> list[str]:
    """Every message on our objects in a namespace, and of its Events."""
    found = [
        condition["message"]
        for resource in (TEMPLATE_KIND, SERVICE_KIND, CACHE)
        for body in (await cluster.list(resource, namespace)).items
        for condition in (body.get("status") or {}).get("conditions") or ()
    ]
    events = [
        event
        for event in (await cluster.list(EVENT, namespace)).items
        if "aim" in str(event.get("reportingController"))
    ]
    return found + [str(event.get("note", "")) for event in events]


async def test_a_hostile_neighbour_changes_and_prints_nothing(
    tmp_path: Path,
) -> None:
    async with control_plane_on_laptop(tmp_path) as stack:
        cluster = stack.lab.cluster
        await hostile_namespace(cluster)
        await kubectl(stack, "apply", "-f", str(stack.quickstart.manifests))
        await kubectl(
            stack,
            "wait",
            f"aimsvc/{SERVICE}",
            "-n",
            NAMESPACE,
            "--for=condition=Ready",
            "--timeout=60s",
        )

        async def are_reported() -> bool:
            """Every hostile object has a word on it."""
            found = [
                body
                for kind in (TEMPLATE_KIND, SERVICE_KIND, CACHE)
                for body in (await cluster.list(kind, HOSTILE)).items
            ]
            return all((body.get("status") or {}).get("conditions") for body in found)

        await eventually(are_reported, "a word on the hostile objects")
        texts = await texts_of(cluster, HOSTILE)
        assert [text for text in texts if not text.isprintable() or len(text) > 1024] == []
        assert [text for text in texts if "the-secret" in text] == []
        ours = await texts_of(cluster, NAMESPACE)
        assert ours
        assert [text for text in ours if HOSTILE in text or "loud" in text] == []
        for resource in (CACHE, JOB, ROUTE, INFERENCE_SERVICE):
            for body in (await cluster.list(resource)).items:
                place = body["metadata"]["namespace"]
                assert (HOSTILE if place == NAMESPACE else NAMESPACE) not in json.dumps(
                    body.get("spec")
                ), f"{resource.kind} in {place}"
                assert resource is not CACHE or place in {HOSTILE, NAMESPACE}
        env = os.environ | {"AIM_NATS_URL": stack.nats_url}
        dead = await asyncio.to_thread(
            subprocess.run,
            [str(BIN / "aimctl"), "dead"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert dead.stdout.strip() == "no dead letters"
