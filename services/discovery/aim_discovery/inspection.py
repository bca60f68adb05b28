"""Inspects images: each once, a few at a time per registry (so that one that hangs does not delay
another), outside the queue.

Pull secrets are read on demand, by name, from the control plane's namespace. Their content is sent
only to the registry.
"""

import asyncio
import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from aim_discovery.actions import InspectImage
from aim_discovery.catalogue import INSPECTION, Inspection
from aim_discovery.image import Image, parse_image
from aim_discovery.image_labels import read_labels
from aim_discovery.keyring import Entry, entries_of, matching, unusable_entries
from aim_discovery.registry import Registries, RegistryProblem
from aimcontroller.action_log import ActionRecord
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.projection import Observation
from aimkube import Cluster, Forbidden, KubeError, NotFound
from aimschema import reasons
from aimschema.messages import Finding
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import CONFIG, SECRET, Key

MOST_AT_ONCE = 5
"""Inspects images of one registry."""
ACCOUNT = f"aim-{reasons.DISCOVERY}"
PULL_SECRETS_VALUE = "services.discovery.pullSecrets"
"""The chart's value with the names of the Secrets that ACCOUNT may get."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PullSecrets:
    """`entries` of all pull Secrets that can be used. `forbidden`: names of those that the API
    server does not let us read; `notes`: what is wrong with the others."""

    entries: tuple[Entry, ...]
    forbidden: tuple[str, ...]
    notes: tuple[str, ...]


class Inspector:
    """The handler of InspectImage actions."""

    def __init__(self, registries: Registries, namespace: str) -> None:
        self._registries = registries
        self._namespace = namespace
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(MOST_AT_ONCE)
        )
        self._running: dict[Key, tuple[str, asyncio.Task[None]]] = {}

    def start(self, action: InspectImage, ctx: ActionContext) -> ActionResult:
        """Start the inspection in the background, unless the same one runs. One with other inputs
        is cancelled."""
        inputs, running = self._running.get(action.model, ("", None))
        if running is not None and inputs == action.inputs:
            return ActionResult()
        if running is not None:
            running.cancel()
        task = ctx.start(self._inspect(action, ctx.cluster))
        self._running[action.model] = (action.inputs, task)
        task.add_done_callback(lambda ended: self._forget(action.model, ended))
        return ActionResult()

    def _forget(self, model: Key, ended: "asyncio.Task[None]") -> None:
        if self._running.get(model, (None, None))[1] is ended:
            del self._running[model]

    async def _inspect(self, action: InspectImage, cluster: Cluster) -> ActionResult:
        """Raises KubeError where the API server, not the registry, fails."""
        async with self._turns[_registry_of(action.image)]:
            try:
                result = await self._inspect_image(cluster, action)
            except KubeError as error:
                log.info("pull-secret-not-read", model=action.model.name, error=str(error))
                raise
            except Exception as error:  # (unexpected; it must not prevent the next inspection)
                log.exception("inspection-failed", model=action.model.name, image=action.image)
                message = f"the image cannot be inspected: {type(error).__name__}"
                result = _failed_inspection(
                    action, RegistryProblem(reasons.REGISTRY_UNREACHABLE, message)
                )
        log.info(
            "inspected",
            model=action.model.name,
            image=action.image,
            outcome=result.reason or reasons.INSPECTED,
        )
        observation = Observation(action.model, INSPECTION, result)
        finding = None if result.found is not None else finding_of(result)
        record = ActionRecord(detail=result.message, finding=finding)
        return ActionResult(observations=(observation,), requeue_after_s=0.0, record=record)

    async def _inspect_image(self, cluster: Cluster, action: InspectImage) -> Inspection:
        try:
            image = parse_image(action.image)
        except ValueError as error:
            return _failed_inspection(
                action,
                RegistryProblem(
                    reasons.IMAGE_NOT_FOUND, f"spec.image is not an image reference: {error}"
                ),
            )
        read = await self._read(cluster, action.pull_secrets)
        try:
            config = await self._registries.config_of(image, matching(read.entries, image))
            found = read_labels(config.labels)
        except RegistryProblem as problem:
            return _failed_inspection(action, problem, self._advice(problem.reason, image, read))
        except ValueError as error:
            return _failed_inspection(
                action,
                RegistryProblem(
                    reasons.METADATA_MISSING, f"the image has no usable labels: {error}"
                ),
            )
        return Inspection(action.image, action.inputs, action.attempt, _now(), found, config.digest)

    async def _read(self, cluster: Cluster, secrets: Sequence[str]) -> PullSecrets:
        """As for a pod, that a pull Secret is missing is no fault by itself."""
        entries: list[Entry] = []
        forbidden: list[str] = []
        notes: list[str] = []
        for name in secrets:
            try:
                secret = await cluster.get(SECRET, self._namespace, name)
                entries += entries_of(secret)
                if passed := unusable_entries(secret):
                    notes.append(f"Secret {name} {passed}")
            except NotFound:
                notes.append(f"Secret {name} does not exist in namespace {self._namespace}")
            except Forbidden:
                forbidden.append(name)
            except ValueError as error:
                notes.append(f"Secret {name} {error}")
        return PullSecrets(tuple(entries), tuple(forbidden), tuple(notes))

    def _advice(self, reason: str, image: Image, read: PullSecrets) -> str:
        """What is wrong with the credentials, where that may be why an image is not found."""
        forbidden = self._missing_permission(read.forbidden)
        if reason == reasons.IMAGE_NOT_FOUND:  # (so some registries answer who may not read it)
            return forbidden
        if reason != reasons.AUTH_ERROR:
            return ""
        where = f"{CONFIG.kind} {DEFAULT_CONFIG} of namespace {self._namespace}"
        if matching(read.entries, image):
            had = "were rejected: correct them"
        elif forbidden:
            had = "have none for it that can be read"
        else:
            had = "have none for it: add a Secret there"
        whole = f"the credentials of images.imagePullSecrets in {where} {had}"
        return "; ".join(part for part in (whole, forbidden, *read.notes) if part)

    def _missing_permission(self, secrets: Sequence[str]) -> str:
        if not secrets:
            return ""
        return (
            f"ServiceAccount {ACCOUNT} is missing get on secrets named {', '.join(secrets)} in"
            f" namespace {self._namespace}: add the name to the chart's value"
            f" {PULL_SECRETS_VALUE}, or to resourceNames in deploy/rbac/aim-discovery.yaml"
        )


def finding_of(failed: Inspection) -> Finding:
    return Finding(
        reason=failed.reason,
        message=failed.message,
        remedy=failed.way_out,
        attempt=failed.attempt,
        retry_after_s=failed.retry_after_s,
    )


def _registry_of(image: str) -> str:
    try:
        return parse_image(image).registry
    except ValueError:
        return ""


def _failed_inspection(
    action: InspectImage, problem: RegistryProblem, advice: str = ""
) -> Inspection:
    return Inspection(
        action.image,
        action.inputs,
        action.attempt,
        _now(),
        reason=problem.reason,
        message=f"{problem}{f' ({advice})' if advice else ''}",
        retry_after_s=problem.retry_after_s,
        way_out=problem.way_out,
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
