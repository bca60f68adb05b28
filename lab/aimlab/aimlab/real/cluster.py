"""The control plane of a real cluster, with KServe and the kinds of the Gateway API but no node."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aimctl.local.processes import Children
from aimkube import Cluster
from aimlab.capabilities import probe
from aimlab.envtest import kube_apiserver
from aimlab.lab import define
from aimlab.real.kserve import crds_in, kserve
from aimlab.real.parts import KServe, Parts

AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata}
"""
FOLDER = "AIM_REAL_FOLDER"
"""Where a command beside the cluster finds its kubeconfig and logs."""

TRIES = 12
"""Attempts to find the controllers running, of 5 s each."""

AUDIT_LOG = "audit.jsonl"
"""Every request that was answered, a JSON line each, beside the kubeconfig."""


@asynccontextmanager
async def real_cluster(
    folder: Path,
    parts: Parts,
    kserve_part: KServe | None = None,
) -> AsyncIterator[Path]:
    """Runs it in `folder` for as long as the block lasts; gives an administrator's kubeconfig.

    `kserve_part` takes the place of the KServe of `parts`. For pods that a gateway reaches, call
    `network.enter` first. Raises RuntimeError naming the part that does not come up, and its log.
    """
    async with AsyncExitStack() as stack:
        kubeconfig = await stack.enter_async_context(
            kube_apiserver(parts.bin, folder, more=audit_flags(folder))
        )
        children = await stack.enter_async_context(Children(folder / "log"))
        for name, flags in controllers(folder, kubeconfig).items():
            await children.start(name, [str(parts.bin / name), *flags])
        cluster = await Cluster.connect(str(kubeconfig), user_agent="aimlab")
        stack.push_async_callback(cluster.close)
        await define(cluster, list(crds_in(parts.gateway_crds)))
        await stack.enter_async_context(
            kserve(children, cluster, kubeconfig, kserve_part or parts.kserve)
        )
        await _until_at_work(cluster, children)
        yield kubeconfig


async def _until_at_work(cluster: Cluster, children: Children) -> None:
    """Every controller has done something. Raises RuntimeError naming one that has ended, or
    what none does."""
    able = None
    for _ in range(TRIES):
        able = await probe(cluster, "default")
        if able.collects and able.runs_jobs and able.schedules and able.serves:
            return
        for name, process in children.running.items():
            if process.returncode is not None:
                raise RuntimeError(f"{name} has ended; its log is {children.log_of(name)}")
    raise RuntimeError(
        f"the controllers do not work: {able}; their logs are in {children.log_of('kserve').parent}"
    )


def audit_flags(folder: Path) -> list[str]:
    """Flags of kube-apiserver for the audit log in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = folder / "audit-policy.yaml"
    policy.write_text(AUDIT_POLICY)
    return [f"--audit-policy-file={policy}", f"--audit-log-path={folder / AUDIT_LOG}"]


def controllers(folder: Path, kubeconfig: Path) -> dict[str, list[str]]:
    """The flags of kube-controller-manager and kube-scheduler, which are alone and serve
    nothing."""
    common = [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
    keys = [
        f"--service-account-private-key-file={folder / 'apiserver.key'}",
        f"--root-ca-file={folder / 'apiserver.crt'}",
    ]
    return {"kube-controller-manager": [*common, *keys], "kube-scheduler": common}
