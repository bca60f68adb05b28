"""`aimctl logs`: logs of all pods that belong to an object through its chain. Failing pods come
first, with the end of their logs."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from aimcontroller.projection import KubeObject
from aimcontroller.workloads import container_termination, pod_start_failure
from aimctl.analysis.dependencies import containers, in_trouble, pods_behind
from aimctl.cluster import cluster_at
from aimctl.invocation import a_console, parse_key, run
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.state_stream import current_state
from aimkube import Cluster, KubeError, describe_error
from aimschema.resources import Key

FAILED_TAIL_LINES = 20


async def show_logs(
    key: Key,
    kubeconfig: Path | None,
    console: PlainConsole,
    tail_lines: int | None,
    *,
    follow: bool,
) -> bool:
    """False where there is no pod. `follow`: until the containers have ended. Raises
    RuntimeError without a bus or a cluster."""
    state = await current_state()
    pods = pods_behind(state, key)
    if not pods:
        print_text(
            console,
            f"{key} has no pods; see aimctl explain and aimctl timeline",
            "bold red",
        )
        return False
    async with cluster_at(kubeconfig) as cluster:
        lines = _Lines(cluster, console, tail_lines)
        going = [
            (pod, name)
            for pod in pods
            for name in containers(pod)
            if follow and not in_trouble(pod) and container_termination(pod, name) is None
        ]
        for pod in pods:
            for name in containers(pod):
                if (pod, name) not in going:
                    await lines.show(pod, name)
        await asyncio.gather(*(lines.follow(pod, name) for pod, name in going))
    return True


class _Lines:
    """Prints logs, each line behind `pod/container`."""

    def __init__(self, cluster: Cluster, console: PlainConsole, tail_lines: int | None) -> None:
        self._cluster = cluster
        self._console = console
        self._tail = tail_lines

    async def show(self, pod: KubeObject, container: str) -> None:
        """For a failing pod, the end of the log; for a container that waits for a restart, the log
        of its previous run."""
        trouble = in_trouble(pod)
        tail = FAILED_TAIL_LINES if trouble and self._tail is None else self._tail
        try:
            log = await self._cluster.read_log(
                str(pod.key.namespace),
                pod.key.name,
                container,
                tail_lines=tail,
                previous=_starts_again(pod, container),
            )
        except KubeError as error:
            failure = pod_start_failure(pod)
            self._print(
                pod,
                container,
                [f"no log: {describe_error(error) if failure is None else failure.message}"],
                "bold red",
            )
        else:
            self._print(
                pod, container, log.decode(errors="replace").splitlines(), "red" if trouble else ""
            )

    async def follow(self, pod: KubeObject, container: str) -> None:
        try:
            async for line in self._cluster.follow_log(
                str(pod.key.namespace), pod.key.name, container, tail_lines=self._tail
            ):
                self._print(pod, container, [line.decode(errors="replace")])
        except KubeError as error:
            self._print(
                pod, container, [f"no more of the log: {describe_error(error)}"], "bold red"
            )

    def _print(
        self, pod: KubeObject, container: str, lines: Iterable[str], style: str = ""
    ) -> None:
        for line in lines:
            print_text(self._console, f"{pod.key.name}/{container} | {line}", style)


def _starts_again(pod: KubeObject, container: str) -> bool:
    """It waits, after an end that the kubelet still has the log of (CrashLoopBackOff)."""
    status: dict[str, Any] = next(
        (
            each
            for each in pod.status.get("containerStatuses") or ()
            if each.get("name") == container
        ),
        {},
    )
    return bool(status.get("restartCount")) and "waiting" in (status.get("state") or {})


def logs(
    what: str, namespace: str | None, kubeconfig: Path | None, tail: int | None, *, follow: bool
) -> None:
    console = a_console()
    shown = show_logs(parse_key(what, namespace), kubeconfig, console, tail, follow=follow)
    raise typer.Exit(0 if run(console, shown) else 1)
