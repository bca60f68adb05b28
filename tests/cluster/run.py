"""`make test-cluster`: the scenario tests on an existing API server, with aimlab's node, KServe
stand-in and sources attached to it.

The server is a kube-apiserver and etcd from KUBEBUILDER_ASSETS, else the one of KUBECONFIG. With
neither it prints this and runs no test.
"""

import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aimkube import Cluster, KubeError
from aimlab.capabilities import Capabilities, probe
from aimlab.cli.quickstart import NAMESPACE as QUICKSTART
from aimlab.envtest import kube_apiserver
from aimlab.real.network import has_pod_network
from aimlab.testing.server_fixture import KUBECONFIG
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.resources import NAMESPACE

SCENARIOS = ("test_main_job.py", "test_takeover.py", "test_poison.py")
FOLDER = Path(__file__).parents[1] / "scenario"
TRIED_IN = "default"
NOT_SET = (
    "nothing was tested: set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd, or"
    " KUBECONFIG to an API server without nodes of its own"
)


async def run(arguments: list[str]) -> int:
    """The exit code of the tests. Raises RuntimeError where there is no server to test on,
    KubeError where it does not answer as it should."""
    assets, from_environment = os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("KUBECONFIG")
    if not assets and not from_environment:
        print(NOT_SET)
        return 0
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aim-cluster-")))
        kubeconfig = (
            await stack.enter_async_context(kube_apiserver(Path(assets), folder))
            if assets
            else Path(from_environment or "")
        )
        cluster = await Cluster.connect(str(kubeconfig), user_agent="aimlab")
        stack.push_async_callback(cluster.close)
        await _refuse_what_is_in_use(cluster)
        print(describe(await probe(cluster, TRIED_IN)), flush=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            *(str(FOLDER / name) for name in SCENARIOS),
            *arguments,
        ]
        tests = await asyncio.create_subprocess_exec(
            *command, env=os.environ | {KUBECONFIG: str(kubeconfig)}
        )
        code = await tests.wait()
        for name in (QUICKSTART, SYSTEM_NAMESPACE):
            with suppress(KubeError):
                await cluster.delete(NAMESPACE, None, name)
        return code


async def _refuse_what_is_in_use(cluster: Cluster) -> None:
    in_use = {item["metadata"]["name"] for item in (await cluster.list(NAMESPACE)).items} & {
        QUICKSTART,
        SYSTEM_NAMESPACE,
    }
    if in_use:
        raise RuntimeError(
            f"the server has namespaces that the tests make and delete: {', '.join(sorted(in_use))}"
        )


def describe(able: Capabilities) -> str:
    """Who does what that a whole cluster would do."""
    ours = "aimlab's"
    return "\n".join(
        [
            "volumes, kubelet: aimlab's",
            f"scheduler: {'the cluster' if able.schedules else ours}",
            f"KServe: {'the cluster' if able.serves else ours}",
            f"deletes what lost its owner: {'the cluster' if able.collects else ours}",
            f"runs Jobs: {'the cluster' if able.runs_jobs else ours}",
            (
                "gateway: Traefik"
                if able.loopback_endpoints or has_pod_network()
                else (
                    "gateway: none, since the server takes no endpoints on loopback; models are"
                    " asked at their pods"
                )
            ),
        ]
    )


def main() -> None:
    try:
        sys.exit(asyncio.run(run(sys.argv[1:])))
    except (RuntimeError, KubeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
