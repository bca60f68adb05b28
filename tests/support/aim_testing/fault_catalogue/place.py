"""A separate namespace for each case, and the steps of cases in it: apply, edit, delete, and wait
for a condition.

Models, images and sources are named after the case, so that cases can run concurrently.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aimkube import Modified, NotFound, Snapshot
from aimlab.cli.environment import Stack
from aimlab.kinds import SECRET, condition_of
from aimlab.node.images import ImageCommand, read_images, write_images
from aimlab.node.pv_binder import storage_class
from aimlab.sources.registry import Registry
from aimschema import labels
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.resources import (
    CACHE,
    CONFIG,
    EVENT,
    JOB,
    MODEL,
    RESOURCES,
    SERVICE,
    STORAGE_CLASS,
    TEMPLATE,
    Resource,
)

Body = dict[str, Any]
BUCKET = "faults"
GATEWAY = {"name": "aim-gateway", "namespace": SYSTEM_NAMESPACE}
KEYS = "keys"
WITHIN_S = 90.0
"""For each wait: a Job without a pod is reported after 30 s, and the machine may be busy."""


@dataclass
class Place:
    """One case's namespace on the stack. `notes`: every (condition type, reason, message) that
    was reported while waiting."""

    stack: Stack
    name: str
    folder: Path
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    _registries: list[Registry] = field(default_factory=list)

    @property
    def model_name(self) -> str:
        return f"{self.name}:1"

    @property
    def source(self) -> str:
        return f"s3://{BUCKET}/{self.name}/org/model"

    async def make(
        self,
        kind: Resource,
        name: str,
        spec: Body | None = None,
        *,
        namespace: str | None = None,
        **metadata: Any,
    ) -> Body:
        place = {"namespace": namespace or self.name} if kind.namespaced else {}
        body: Body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, **place, **metadata},
        }
        return await self.stack.lab.cluster.create(
            body | ({} if spec is None else {"spec": spec}), resource=kind
        )

    async def edit(self, kind: Resource, name: str, patch: Body) -> None:
        await self.stack.lab.cluster.merge_patch(
            kind, self.name if kind.namespaced else None, name, patch
        )

    async def delete(self, kind: Resource, name: str) -> None:
        await self.stack.lab.cluster.delete(kind, self.name if kind.namespaced else None, name)

    async def get(self, kind: Resource, name: str) -> Body:
        return await self.stack.lab.cluster.get(kind, self.name if kind.namespaced else None, name)

    async def retry(self, kind: Resource, name: str) -> None:
        """Ask for another try at once."""
        await self.edit(kind, name, {"metadata": {"annotations": {labels.ANNOTATION_RETRY: "now"}}})

    # --- what a case is about ---

    async def config(self, name: str = "default", **spec: Any) -> None:
        """With valid keys of the S3 server and a gateway by default."""
        s3 = self.stack.lab.s3
        with contextlib.suppress(Exception):
            await self.secret(KEYS, id=s3.admin.access_key, secret=s3.admin.secret_key)
        store = {
            "endpointUrl": s3.endpoint_url,
            "accessKeyId": {"name": KEYS, "key": "id"},
            "secretAccessKey": {"name": KEYS, "key": "secret"},
        }
        await self.make(
            CONFIG, name, {"credentials": {"s3": [store]}, "routing": {"gateway": GATEWAY}} | spec
        )

    async def secret(self, name: str, **data: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.name},
            "stringData": data,
        }
        await self.stack.lab.cluster.create(body, resource=SECRET)

    async def image(self, answer: str | None = None, *options: str) -> str:
        """The case's image answers so from now on (None: with the case's source); gives its
        name."""
        text = json.dumps(self.answer()) if answer is None else answer
        file = self.folder / f"{self.name}.answer"
        await asyncio.to_thread(file.write_text, text)
        command = (sys.executable, str(Path(__file__).with_name("image.py")), *options, str(file))
        name = f"registry.lab.local/faults/{self.name}:1"
        table = self.stack.lab.state_dir / "images.json"
        write_images(table, read_images(table) | {name: ImageCommand(command)})
        return name

    def answer(self, *sources: str) -> list[Body]:
        models = [
            {"name": "org/model", "source": source, "size_gb": 0.001}
            for source in sources or (self.source,)
        ]
        return [{"filename": "p", "profile": {"model": "org/model"}, "models": models}]

    async def model(self, answer: str | None = None, *options: str) -> None:
        await self.make(
            MODEL, self.name, {"name": self.model_name, "image": await self.image(answer, *options)}
        )

    async def template(self, name: str = "t", **spec: Any) -> None:
        await self.make(
            TEMPLATE,
            name,
            {
                "model": self.model_name,
                "metric": "latency",
                "gpuModel": "MI300X",
                "gpusPerReplica": 1,
                "tensorParallelism": 1,
            }
            | spec,
        )

    async def service(self, name: str = "s", metadata: Body | None = None, **spec: Any) -> None:
        """By default the runtime loads its model itself, so the case has no cache."""
        await self.make(
            SERVICE,
            name,
            {"model": self.model_name, "templateRef": "t", "cacheModel": False} | spec,
            **metadata or {},
        )

    async def cache(self, name: str = "c", **spec: Any) -> None:
        await self.make(CACHE, name, {"sourceUri": self.source} | spec)

    async def registry(self) -> Registry:
        """The case's own, started when it is first asked for."""
        if not self._registries:
            self._registries.append(Registry())
            await self._registries[0].start()
        return self._registries[0]

    async def storage_class(self, name: str, **fields: str) -> None:
        """Binds at once."""
        await self.stack.lab.cluster.create(storage_class(name, "Immediate") | fields)

    async def slow_class(self) -> str:
        """A class whose provisioner gives no volume; gives its name."""
        name = f"slow-{self.name}"
        await self.storage_class(name, provisioner="example.org/slow")
        return name

    async def volume_arrives(self) -> None:
        """The slow class gets a working provisioner; a class is immutable, so it is re-created."""
        await self.delete(STORAGE_CLASS, f"slow-{self.name}")
        await self.storage_class(f"slow-{self.name}")

    async def put_source(self, source: str | None = None) -> None:
        """A few small files where the source is."""
        folder = self.folder / f"{self.name}.files"
        await asyncio.to_thread(_write_files, folder)
        _, _, place = (source or self.source).partition("://")
        bucket, _, prefix = place.partition("/")
        await self.stack.lab.s3.put_folder(bucket, prefix, folder)

    async def running(self) -> None:
        """A service that runs, with all it is made from."""
        await self.config()
        await self.model()
        await self.template()
        await self.service()
        await self.until_reported(SERVICE, "s", "Ready", "Running")

    # --- waiting ---

    async def until_reported(
        self, kind: Resource, name: str, condition: str, reason: str, *fragments: str
    ) -> Body:
        """Waits until a condition of the object has this reason and these words; gives the
        object."""

        def holds(body: Body) -> bool:
            found = condition_of(body, condition) or {}
            return found.get("reason") == reason and all(
                word in found.get("message", "") for word in fragments
            )

        return await self.until(kind, name, holds, f"{condition}={reason} with {fragments}")

    async def warned(self, kind: Resource, name: str, reason: str, *fragments: str) -> None:
        """Waits for a Warning Event on the object."""
        async with asyncio.timeout(WITHIN_S):
            async for body in self._versions(EVENT):
                about, found = body["regarding"], (body["reason"], body["type"])
                if (about["kind"], about["name"], *found) == (
                    kind.kind,
                    name,
                    reason,
                    "Warning",
                ) and all(word in body["note"] for word in fragments):
                    return

    async def until(
        self, kind: Resource, name: str, holds: Callable[[Body], bool], what: str
    ) -> Body:
        last: Body = {}
        try:
            async with (
                asyncio.timeout(WITHIN_S),
                contextlib.aclosing(self._versions(kind)) as versions,
            ):
                async for body in versions:
                    if body["metadata"]["name"] == name:
                        last = body
                        self._note(body)
                        if holds(body):
                            return body
        except TimeoutError:
            at_last = last.get("status", last or "it was not there")
            raise AssertionError(
                f"{kind.kind} {self.name}/{name} never had {what}; at last {at_last}"
            ) from None
        raise AssertionError("a watch never ends")

    async def _versions(self, kind: Resource) -> AsyncGenerator[Body]:
        """Every version of every object of a kind here."""
        stream = self.stack.lab.cluster.list_and_watch(kind, self.name if kind.namespaced else None)
        async with contextlib.aclosing(stream):
            async for event in stream:
                if isinstance(event, Snapshot):
                    for body in event.items:
                        yield body
                elif isinstance(event, Modified):
                    yield event.body

    def _note(self, body: Body) -> None:
        for found in body.get("status", {}).get("conditions") or ():
            note = (found["type"], found["reason"], found.get("message", ""))
            if note not in self.notes:
                self.notes.append(note)

    async def until_deleted(self, kind: Resource, name: str) -> None:
        """Waits until the object is not there."""
        while True:
            try:
                await self.get(kind, name)
            except NotFound:
                return
            await asyncio.sleep(0.05)

    async def no_jobs(self) -> None:
        """Waits until what was tried is recorded, so that its Jobs are gone."""
        while (await self.stack.lab.cluster.list(JOB, self.name)).items:  # noqa: ASYNC110 (other processes bring it about)
            await asyncio.sleep(0.05)

    async def leave(self) -> None:
        """Take everything of the case away, so that its GPUs are free."""
        with contextlib.suppress(NotFound):
            await self.stack.lab.cluster.delete(RESOURCES["Namespace"], None, self.name)
        with contextlib.suppress(NotFound):
            await self.stack.lab.cluster.delete(MODEL, None, self.name)
        for registry in self._registries:
            await registry.stop()


def _write_files(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(3):
        (folder / f"weights-{number}.bin").write_bytes(bytes([number]) * 100_000)
