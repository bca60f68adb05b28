"""The least that can react: `python -m support.watch_and_patch KUBECONFIG NAMESPACE` watches
AIMServices and writes the status of each new one. No bus, no plan, no second look."""

import asyncio
import sys
from pathlib import Path

import msgspec

from aimschema.resources import SERVICE
from support.raw import Body, RawApi

STATUS: Body = {
    "observedGeneration": 1,
    "status": "Degraded",
    "conditions": [
        {
            "type": kind,
            "status": "False",
            "reason": "TemplateNotFound",
            "message": "AIMServiceTemplate missing does not exist in this namespace; create it",
            "observedGeneration": 1,
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        }
        for kind in ("Ready", "Progressing", "Resolved")
    ],
}


async def main(kubeconfig: Path, namespace: str) -> None:
    async with RawApi.open(kubeconfig) as api:
        version = await api.version_of(SERVICE.path(namespace))
        print("ready", flush=True)
        async for line in api.watch(SERVICE.path(namespace), version):
            if line.startswith(b'{"type":"ADDED"'):
                metadata = msgspec.json.decode(line)["object"]["metadata"]
                body = {
                    "apiVersion": SERVICE.api_version,
                    "kind": SERVICE.kind,
                    "metadata": {"name": metadata["name"], "namespace": namespace},
                    "status": STATUS,
                }
                path = SERVICE.path(namespace, metadata["name"], "status")
                await api.apply(path, body, "bench")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
