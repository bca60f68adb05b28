"""Whether something that was secret in a run on the laptop cluster has got out: what the
scenario tests claim at their end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import aiohttp

import aimbus
from aimkube import NotFound
from aimlab.cli.environment import Stack
from aimlab.kinds import VOLUME
from aimschema import subjects
from aimschema.messages import encode
from aimschema.resources import RESOURCES

KNOWS_SECRETS = (
    "s3/",
    "team-store/",
    "quickstart/",
    "huggingface/",
    "two-stores/",
    "log/traefik.log",
)
"""The S3 servers' own files, the manifests that users apply, and the gateway, which watches
Secrets, as gateways do, for TLS."""


async def leaks(stack: Stack, secrets: Iterable[str]) -> list[str]:
    """Where any of these values is: in events, objects and their status, Kubernetes Events,
    metrics, or any file of the cluster and its processes."""
    values = [secret.encode() for secret in secrets]
    return [
        place
        async for place, content in _everything(stack)
        if any(value in content for value in values)
    ]


async def _everything(stack: Stack) -> AsyncIterator[tuple[str, bytes]]:
    for name, path in await asyncio.to_thread(_files, stack.lab.state_dir):
        with contextlib.suppress(FileNotFoundError):  # a pod that has just gone
            yield name, await asyncio.to_thread(path.read_bytes)
    bus = await aimbus.connect(stack.nats_url, name="aimctl", access=stack.access)
    try:
        async with contextlib.aclosing(aimbus.read_log(bus, [subjects.ALL])) as events:
            async for event in events:
                if isinstance(event, aimbus.Event):
                    yield f"event {event.seq} on {event.subject}", encode(event.message)
    finally:
        await bus.close()
    for resource in (*RESOURCES.values(), VOLUME):
        with contextlib.suppress(NotFound):
            for body in (await stack.lab.cluster.list(resource)).items:
                yield f"{resource.kind} {body['metadata']['name']}", json.dumps(body).encode()
    async with aiohttp.ClientSession(trust_env=False) as client:
        for service, url in stack.health.items():
            async with client.get(f"{url}/metrics") as answer:
                yield f"metrics of {service}", await answer.read()


def _files(folder: Path) -> list[tuple[str, Path]]:
    """All but those that must know secrets, and models, which are large."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.suffix != ".safetensors"
    ]
    named = [(path.relative_to(folder).as_posix(), path) for path in found]
    return [(name, path) for name, path in named if not name.startswith(KNOWS_SECRETS)]
