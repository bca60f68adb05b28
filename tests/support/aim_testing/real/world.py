"""A control plane on real parts, and model servers that fail when asked."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from aimkube import NotFound
from aimlab.cli.environment import Stack, kubectl
from aimlab.cli.quickstart import MODEL, NAMESPACE, SOURCE, WEIGHTS
from aimlab.kinds import is_deleting
from aimlab.node.images import ImageCommand, read_images, write_images
from aimlab.real.cluster import AUDIT_LOG
from aimlab.testing import eventually
from aimschema.resources import MODEL as CLUSTER_MODEL
from aimschema.resources import POD, SERVICE, TEMPLATE, Resource

Body = dict[str, Any]
CRASH, HANG = "crash", "hang"
MODEL_SERVER = """
[ "$1" = dry-run ] && exec {serve} "$@"
[ -e {faults}/crash ] && {{ echo "cannot load the model" >&2; exit 3; }}
[ -e {faults}/hang ] && exec sleep 100000
{serve} "$@" & model=$!
trap 'kill $model; exit 0' TERM
while kill -0 $model; do
    [ -e {faults}/crash ] && {{ kill -9 $model; exit 3; }}
    sleep 0.2
done
exit 1
"""
"""A model image that reads from a folder which faults to show."""


@dataclass(frozen=True)
class Real:
    """The control plane, and the folder of the real cluster."""

    stack: Stack
    folder: Path

    async def kubectl(self, *args: str) -> str:
        return await kubectl(self.stack.lab, *args)

    async def get(self, resource: Resource, name: str) -> Body:
        return await self.stack.lab.cluster.get(resource, NAMESPACE, name)

    async def until(self, resource: Resource, name: str, holds: Callable[[Body], bool]) -> Body:
        """The object as soon as it is so."""
        found: Body = {}

        async def check() -> bool:
            with contextlib.suppress(NotFound):
                found.update(await self.get(resource, name))
            return bool(found) and holds(found)

        try:
            await eventually(check, f"{resource.kind} {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}, it is still {found.get('status', found)}") from None
        return found

    async def until_running(self, name: str, replicas: int = 1) -> Body:
        def is_running(service: Body) -> bool:
            status = service.get("status", {})
            return bool(
                status.get("status") == "Running" and status.get("readyReplicas") == replicas
            )

        return await self.until(SERVICE, name, is_running)

    async def pods(self, name: str) -> list[Body]:
        label = f"serving.kserve.io/inferenceservice={name}"
        found = (await self.stack.lab.cluster.list(POD, NAMESPACE, label_selector=label)).items
        return [pod for pod in found if not is_deleting(pod)]

    def _faults(self, name: str) -> Path:
        return self.stack.lab.state_dir / "faults" / name

    def begin(self, name: str, fault: str) -> None:
        """From now on the model servers of this service show the fault."""
        self._faults(name).mkdir(parents=True, exist_ok=True)
        (self._faults(name) / fault).touch()

    def end(self, name: str, fault: str) -> None:
        (self._faults(name) / fault).unlink()

    async def serve(self, name: str, **spec: object) -> None:
        """Makes a model, a template and a service of that name."""
        lab = self.stack.lab
        repository = f"aim/{name}"
        lab.registry.put_image(repository, "1", {})
        image = f"{lab.registry.host}/{repository}:1"
        table = lab.state_dir / "images.json"
        images = read_images(table)
        serve = " ".join(self._model_command(images))
        script = MODEL_SERVER.format(serve=serve, faults=self._faults(name))
        write_images(table, images | {image: ImageCommand(("/bin/sh", "-c", script, "model"))})
        profile = {
            "metric": "latency",
            "gpuModel": "MI300X",
            "gpusPerReplica": 1,
            "tensorParallelism": 1,
        }
        made = (
            (CLUSTER_MODEL, {"name": name, "image": image}),
            (TEMPLATE, {"model": name} | profile),
            (SERVICE, {"model": name, "templateRef": name} | spec),
        )
        for resource, body in made:
            metadata = {"name": name} | ({"namespace": NAMESPACE} if resource.namespaced else {})
            whole = {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": metadata,
                "spec": body,
            }
            await lab.cluster.create(whole)

    def _model_command(self, images: dict[str, ImageCommand]) -> tuple[str, ...]:
        """The command of the quickstart's model image."""
        return next(image.command for image in images.values() if SOURCE in image.command)

    async def scale(self, name: str, replicas: int) -> None:
        await self.stack.lab.cluster.merge_patch(
            SERVICE, NAMESPACE, name, {"spec": {"replicas": replicas}}
        )

    async def ask(self, name: str) -> str:
        """The model's answer through the gateway."""
        url = (await self.get(SERVICE, name))["status"]["url"]
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
        answers: list[str] = []

        async def answered() -> bool:
            async with (
                aiohttp.ClientSession(trust_env=False) as client,
                client.post(f"{url}/v1/chat/completions", json=body) as answer,
            ):
                if answer.status == 200:
                    answers.append(str((await answer.json())["choices"][0]["message"]["content"]))
            return bool(answers)

        await eventually(answered, f"an answer of {name} at {url}")
        return answers[0]

    def is_answer(self, text: str) -> bool:
        """It comes from the files that were cached."""
        return self.stack.quickstart.sums[WEIGHTS] in text

    def requests(self) -> list[Body]:
        """Every request so far that the API server has answered."""
        lines = (self.folder / AUDIT_LOG).read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines]
