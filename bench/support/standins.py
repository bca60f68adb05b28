"""KServe and gateway that answer at once: `python -m support.standins KUBECONFIG`.

Each InferenceService gets a ready pod and the condition Ready, each HTTPRoute is Accepted, with one
write per object and no plan. The time and the CPU that remain are those of the control plane.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from aimschema.labels import KSERVE_COMPONENT_LABEL, KSERVE_ISVC_LABEL
from aimschema.resources import INFERENCE_SERVICE, POD, ROUTE, Resource
from support.raw import Body, RawApi, RequestFailed

NODE = "bench-node"
TIME = "2030-01-01T00:00:00Z"
LANES = 8
Answer = Callable[[RawApi, Body], Awaitable[None]]


async def answer_runtime(api: RawApi, runtime: Body) -> None:
    """The pod first, so that one reconcile finds everything ready."""
    metadata = runtime["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    pod = await api.post(POD.path(namespace), pod_of(runtime))
    await api.merge(POD.path(namespace, pod["metadata"]["name"], "status"), {"status": POD_STATUS})
    await api.merge(
        INFERENCE_SERVICE.path(namespace, name, "status"), {"status": runtime_status(name)}
    )


async def answer_route(api: RawApi, route: Body) -> None:
    metadata = route["metadata"]
    path = ROUTE.path(metadata["namespace"], metadata["name"], "status")
    await api.merge(path, {"status": route_status(route)})


def pod_of(runtime: Body) -> Body:
    metadata = runtime["metadata"]
    predictor = runtime["spec"]["predictor"]
    labels = {
        **metadata["labels"],  # KServe copies them
        KSERVE_ISVC_LABEL: metadata["name"],
        KSERVE_COMPONENT_LABEL: "predictor",
    }
    container = {
        "name": predictor["containers"][0]["name"],
        "image": predictor["containers"][0]["image"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-predictor-0",
            "namespace": metadata["namespace"],
            "labels": labels,
        },
        "spec": {
            "nodeName": NODE,
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }


POD_STATUS: Body = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": TIME}],
}


def runtime_status(name: str) -> Body:
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": TIME}
        for kind in ("IngressReady", "PredictorReady", "Ready")
    ]
    return {"conditions": conditions, "deploymentMode": "Standard", "url": f"http://{name}.local"}


def route_status(route: Body) -> Body:
    return {
        "parents": [
            {
                "controllerName": "bench.example.com/gateway",
                "parentRef": parent,
                "conditions": [
                    {
                        "type": kind,
                        "status": "True",
                        "reason": kind,
                        "message": "",
                        "observedGeneration": route["metadata"]["generation"],
                        "lastTransitionTime": TIME,
                    }
                    for kind in ("Accepted", "ResolvedRefs")
                ],
            }
            for parent in route["spec"]["parentRefs"]
        ]
    }


async def serve(api: RawApi, resource: Resource, version: str, answer: Answer) -> None:
    """Answers every object that is created after `version`."""
    created: asyncio.Queue[Body] = asyncio.Queue()

    async def work() -> None:
        while True:
            body = await created.get()
            try:
                await answer(api, body)
            except RequestFailed as error:  # deleted meanwhile
                print(error, file=sys.stderr, flush=True)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(LANES):
            tasks.create_task(work())
        async for line in api.watch(resource.path(), version):
            if line.startswith(b'{"type":"ADDED"'):
                created.put_nowait(msgspec.json.decode(line)["object"])


async def main(kubeconfig: Path) -> None:
    async with RawApi.open(kubeconfig) as api, asyncio.TaskGroup() as tasks:
        for resource, answer in ((INFERENCE_SERVICE, answer_runtime), (ROUTE, answer_route)):
            version = await api.version_of(resource.path())
            tasks.create_task(serve(api, resource, version, answer))
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
