"""The loop of every small controller of the laptop cluster: read the state, plan, write, wait for a
change.

Planning is a pure function of the objects and the time. Writes are idempotent: an object that
already exists, is already deleted or has changed meanwhile is left alone, since the next reconcile
sees the new state.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

from aimkube import AlreadyExists, Cluster, Conflict, Forbidden, Invalid, KubeError, NotFound
from aimlab.informer import Informer, Objects
from aimlab.kinds import Body
from aimschema.resources import Resource

_LOG = logging.getLogger(__name__)
RETRY_S = 1.0
COALESCE_S = 0.01


@dataclass(frozen=True, slots=True)
class Create:
    """`rejected` gives what to write where the API server rejects it for good, from its message."""

    resource: Resource
    body: Body
    rejected: "Callable[[str], Sequence[Write]] | None" = None


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch (RFC 7386); put the uid into it where a successor of the same name must
    not be hit."""

    resource: Resource
    namespace: str | None
    name: str
    body: Body
    subresource: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    resource: Resource
    namespace: str | None
    name: str
    uid: str
    grace_period_s: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveFolder:
    path: Path


Write = Create | Patch | Delete | RemoveFolder


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What a reconcile plans, and the delay of the next one without a change (None: no requeue)."""

    writes: list[Write] = field(default_factory=list)
    requeue_after_s: float | None = None

    def __add__(self, other: "ReconcileResult") -> "ReconcileResult":
        waits = [wait for wait in (self.requeue_after_s, other.requeue_after_s) if wait is not None]
        return ReconcileResult(self.writes + other.writes, min(waits, default=None))


def patch_of(resource: Resource, body: Body, patch: Body, subresource: str | None = None) -> Patch:
    """`patch` for the very object `body`, not for a successor of its name."""
    metadata = body["metadata"]
    guarded = patch | {"metadata": patch.get("metadata", {}) | {"uid": metadata["uid"]}}
    return Patch(resource, metadata.get("namespace"), metadata["name"], guarded, subresource)


def delete_of(resource: Resource, body: Body, *, grace_period_s: int | None = None) -> Delete:
    metadata = body["metadata"]
    return Delete(
        resource, metadata.get("namespace"), metadata["name"], metadata["uid"], grace_period_s
    )


async def control(
    cluster: Cluster, mirror: Informer, plan: Callable[[Objects, datetime], ReconcileResult]
) -> None:
    """Runs `plan` now and after every change, for ever."""
    changed = mirror.listen()
    await mirror.loaded.wait()
    while True:
        changed.clear()
        try:
            step = plan(mirror.objects, datetime.now(UTC))
        except Exception:
            _LOG.exception("cannot decide; an object may be malformed")
            step = ReconcileResult(requeue_after_s=RETRY_S)
        results = [await try_write(cluster, write) for write in step.writes]
        wait_s = step.requeue_after_s if all(results) else RETRY_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), wait_s)
        await asyncio.sleep(COALESCE_S)


async def try_write(cluster: Cluster, write: Write) -> bool:
    """False where it failed in a way that waiting for a change does not heal."""
    try:
        await execute(cluster, write)
    except (AlreadyExists, NotFound, Conflict) as error:
        _LOG.debug("%s is out of date: %s", write, error)
    except (Invalid, Forbidden) as error:
        if isinstance(write, Create) and write.rejected is not None:
            for instead in write.rejected(error.message):
                await try_write(cluster, instead)
            return False
        _LOG.warning("the API server refuses what %s writes: %s", type(write).__name__, error)
        return isinstance(error, Invalid)
    except KubeError as error:
        _LOG.warning("could not %s: %s", type(write).__name__, error)
        return False
    return True


async def execute(cluster: Cluster, write: Write) -> None:
    match write:
        case Create(resource=resource, body=body):
            await cluster.create(body, resource=resource)
        case Patch():
            await cluster.merge_patch(
                write.resource,
                write.namespace,
                write.name,
                write.body,
                subresource=write.subresource,
            )
        case Delete():
            await cluster.delete(
                write.resource,
                write.namespace,
                write.name,
                uid=write.uid,
                grace_period_s=write.grace_period_s,
            )
        case RemoveFolder(path=path):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        case _:
            assert_never(write)
