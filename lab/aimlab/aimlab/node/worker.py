"""Runs one Pod: waits for its volumes, restarts its containers by restartPolicy, and reports its
status.

Cancelling `run` ends the processes: SIGTERM, then SIGKILL after `grace_s`. Nothing of the pod runs
once `run` has returned.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import aiohttp
import msgspec

from aimctl.local.processes import start, stop
from aimkube import Cluster, KubeError, NotFound
from aimlab.accounts import account_kubeconfig
from aimlab.controller_loop import patch_of, try_write
from aimlab.gateway.traefik import Api
from aimlab.informer import Objects
from aimlab.kinds import SECRET, Body, uid_of
from aimlab.node import environment, service_proxy, volumes
from aimlab.node.events import warning
from aimlab.node.images import BUILT_IN, ImageCommand, Trouble, read_images
from aimlab.node.launch import ContainerFiles, Launch, address_of, prepare
from aimlab.node.podstatus import (
    LONGEST_MESSAGE_BYTES,
    Running,
    Terminated,
    Waiting,
    containers_before,
    pod_status,
    restarts_after,
)
from aimlab.node.probes import watch_probes
from aimschema.resources import CONFIG_MAP, POD

_LOG = logging.getLogger(__name__)
RETRY_S = 1.0
LONGEST_RETRY_S = 10.0
FALLBACK_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Node:
    """What every pod of the node shares."""

    cluster: Cluster
    state: Objects
    state_dir: Path
    images: Path
    client: aiohttp.ClientSession
    api: Api
    pod_network: IPv4Network

    def pod_dir(self, uid: str) -> Path:
        return self.state_dir / "pods" / uid


class PodWorker:
    def __init__(self, node: Node, pod: Body) -> None:
        self.pod = pod
        self.grace_s = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        self._node = node
        self._dir = node.pod_dir(uid_of(pod))
        self._ip = address_of(uid_of(pod), node.pod_network)
        self._containers = containers_before(pod, datetime.now(UTC))
        self._changed = asyncio.Event()
        self._changed.set()
        self._reporting = asyncio.Lock()

    async def run(self) -> None:
        """Returns when every container has ended for good and that has been reported."""
        if trouble := await self._trouble("pod_fails"):
            await self._fail(trouble)
            return
        reporting = asyncio.create_task(self._report())
        try:
            folders = await self._mount()
            async with asyncio.TaskGroup() as tasks:
                for spec in self.pod["spec"]["containers"]:
                    tasks.create_task(self._keep(spec, folders))
            await self._report_once()
        finally:
            reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reporting

    def log_of(self, container: str, *, previous: bool = False) -> Path | None:
        """The log of the container's latest (or previous) process; None before there is one or
        for a container that is not the pod's."""
        held = self._containers.get(container)
        if held is None:
            return None
        path = ContainerFiles(self._dir / container).log(
            held.restarts - 1 if previous else held.restarts
        )
        return path if path.exists() else None

    def is_running(self, container: str) -> bool:
        return isinstance(self._containers[container].state, Running)

    async def _mount(self) -> dict[str, Path]:
        while True:
            try:
                if trouble := await self._trouble("cannot_start"):
                    await self._warn(trouble)
                else:
                    contents = await self._fetch(volumes.file_sources(self.pod))
                    return volumes.make_folders(self.pod, self._node.state, contents, self._dir)
            except volumes.NotReadyError as error:
                await self._warn(Trouble("FailedMount", f"MountVolume.SetUp failed: {error}"))
            except KubeError as error:
                _LOG.info("pod %s waits for its volumes: %s", self.pod["metadata"]["name"], error)
            await asyncio.sleep(RETRY_S)

    async def _trouble(self, kind: str) -> Trouble | None:
        """The problem of the pod, from the first image of the table of images that has one."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            images = await asyncio.to_thread(read_images, self._node.images)
            known = (images.get(spec["image"]) for spec in self.pod["spec"]["containers"])
            found = (getattr(image, kind) for image in known if image is not None)
            return next((trouble for trouble in found if trouble is not None), None)
        return None

    async def _warn(self, trouble: Trouble) -> None:
        """An Event on the pod."""
        event = warning(self.pod, trouble.reason, trouble.message, "kubelet", datetime.now(UTC))
        await try_write(self._node.cluster, event)

    async def _fail(self, trouble: Trouble) -> None:
        """The pod is over without a container having run."""
        failed = {"phase": "Failed", "reason": trouble.reason, "message": trouble.message}
        write = patch_of(POD, self.pod, {"status": failed}, "status")
        while True:
            if await try_write(self._node.cluster, write):
                return
            await asyncio.sleep(RETRY_S)

    async def _keep(self, spec: Body, folders: dict[str, Path]) -> None:
        """Starts the container until it has ended for good; each restart waits longer than the
        one before."""
        name, policy = spec["name"], self.pod["spec"].get("restartPolicy", "Always")
        while True:
            ended = self._containers[name].state
            if isinstance(ended, Terminated):
                if not restarts_after(policy, ended.exit_code):
                    return
                await self._back_off(name, ended)
            image = await self._pull_image(spec)
            env = await self._read_environment(spec)
            files = ContainerFiles(self._dir / name)
            prepare(spec, folders, files)
            await self._run_once(Launch(spec, image, env, files, self._ip, await self._account()))

    async def _back_off(self, name: str, ended: Terminated) -> None:
        held = self._containers[name]
        wait_s = min(RETRY_S * 2**held.restarts, LONGEST_RETRY_S)
        metadata = self.pod["metadata"]
        message = (
            f"back-off {wait_s:g}s restarting failed container={name}"
            f" pod={metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        )
        self._set(name, state=Waiting("CrashLoopBackOff", message), last=ended)
        await asyncio.sleep(wait_s)
        self._set(name, restarts=held.restarts + 1)

    async def _pull_image(self, spec: Body) -> ImageCommand:
        """The image's command, once the table has it; the waiting reasons are those of a kubelet
        that cannot pull."""
        image, wait_s = spec["image"], RETRY_S
        while True:
            try:
                found = (BUILT_IN | await asyncio.to_thread(read_images, self._node.images)).get(
                    image
                )
            except (OSError, msgspec.DecodeError) as error:
                found, why = None, f"the image table is not readable: {error}"
            else:
                why = (
                    f'failed to pull and unpack image "{image}": failed to resolve reference'
                    f' "{image}": {image}: not found'
                )
            if found is not None:
                return found
            self._set(spec["name"], state=Waiting("ErrImagePull", why))
            await asyncio.sleep(RETRY_S)
            self._set(
                spec["name"],
                state=Waiting(
                    "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {why}'
                ),
            )
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_RETRY_S)

    async def _read_environment(self, spec: Body) -> dict[str, str]:
        while True:
            try:
                contents = await self._fetch(list(environment.sources_of(spec)))
                env = environment.resolve(self.pod, spec, contents, pod_ip=self._ip)
                return service_proxy.resolve_names(env, self._node.state)
            except (environment.ConfigError, service_proxy.UnknownNameError) as error:
                self._set(spec["name"], state=Waiting("CreateContainerConfigError", str(error)))
            except KubeError as error:
                _LOG.warning(
                    "pod %s waits for the API server: %s", self.pod["metadata"]["name"], error
                )
            await asyncio.sleep(RETRY_S)

    async def _account(self) -> dict[str, str]:
        """What stands for the token that is mounted into a pod
        (/var/run/secrets/kubernetes.io/serviceaccount): a kubeconfig of the pod's account."""
        spec, metadata = self.pod["spec"], self.pod["metadata"]
        name = spec.get("serviceAccountName", "default")
        if name == "default" or spec.get("automountServiceAccountToken") is False:
            return {}
        self._dir.mkdir(parents=True, exist_ok=True)
        account = {"namespace": metadata["namespace"], "name": name}
        while True:
            try:
                return {
                    "KUBECONFIG": str(
                        await account_kubeconfig(
                            self._node.cluster, self._node.api, account, self._dir
                        )
                    )
                }
            except KubeError as error:
                _LOG.warning("pod %s waits for its token: %s", metadata["name"], error)
                await asyncio.sleep(RETRY_S)

    async def _fetch(
        self, sources: list[environment.Source]
    ) -> dict[environment.Source, Body | None]:
        """The Secrets and ConfigMaps, None for one that is not there. Raises KubeError."""
        found: dict[environment.Source, Body | None] = {}
        for kind, name in sources:
            try:
                found[kind, name] = await self._node.cluster.get(
                    SECRET if kind == "Secret" else CONFIG_MAP,
                    self.pod["metadata"]["namespace"],
                    name,
                )
            except NotFound:
                found[kind, name] = None
        return found

    async def _run_once(self, launch: Launch) -> None:
        """One process from start to end, its probes beside it."""
        name = launch.container["name"]
        started = datetime.now(UTC)
        program = launch.program(self._containers[name].restarts)
        try:
            process = await start(program)
        except OSError as error:
            self._set(
                name,
                state=Terminated(128, started, started, f"failed to start: {error}", "StartError"),
            )
            return
        self._set(name, state=Running(started))
        probing = asyncio.create_task(
            watch_probes(
                launch.container,
                self._ip,
                self._node.client,
                lambda up, ready: self._set(name, started=up, ready=ready),
            )
        )
        ending = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({probing, ending}, return_when=asyncio.FIRST_COMPLETED)
            if probing.done() and probing.exception() is None:
                await ending
        finally:
            probing.cancel()
            code = await stop(process, grace_s=self.grace_s)
        self._set(
            name,
            state=_to_terminated(launch, program.output, code, started),
            started=False,
            ready=False,
        )

    async def _report(self) -> None:
        """Writes the status whenever it changes, the latest only."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not await self._report_once():
                self._changed.set()
                await asyncio.sleep(RETRY_S)

    async def _report_once(self) -> bool:
        async with self._reporting:
            status = pod_status(self.pod, self._containers, self._ip, datetime.now(UTC))
            done = await try_write(
                self._node.cluster, patch_of(POD, self.pod, {"status": status}, "status")
            )
            if done:
                self.pod = self.pod | {"status": status}
            return done

    def _set(self, name: str, **changes: object) -> None:
        self._containers[name] = replace(self._containers[name], **changes)  # type: ignore[arg-type]
        self._changed.set()


def _to_terminated(launch: Launch, log: Path, code: int, started: datetime) -> Terminated:
    """How a process ended, with its termination message: the end of the file, or of the log
    where the container asks for that on errors."""
    exit_code = code if code >= 0 else 128 - code
    message = _tail(launch.files.termination(launch.container), LONGEST_MESSAGE_BYTES)
    if (
        not message
        and exit_code
        and launch.container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    ):
        message = _tail(log, FALLBACK_BYTES)
    reason = launch.image.end_reason if exit_code else ""
    return Terminated(exit_code, started, datetime.now(UTC), message, reason)


def _tail(path: Path, size_bytes: int) -> str:
    try:
        return path.read_bytes()[-size_bytes:].decode(errors="replace")
    except OSError:
        return ""
