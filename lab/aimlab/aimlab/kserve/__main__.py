"""`python -m aimlab.kserve`: the stand-in for KServe in the laptop cluster."""

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from aimkube import Cluster
from aimlab.controller_loop import control
from aimlab.informer import Informer
from aimlab.kserve.controller import WATCHED, plan
from aimlab.kserve.modes import VERSIONS, Version
from aimlab.kserve.webhook import webhook
from aimlab.service import run_until_signalled


async def run(kubeconfig: str, version: Version, *, with_webhook: bool) -> None:
    """Runs the controller until cancelled, `with_webhook` by a webhook as well. The CRD
    (aimlab/crds/kserve.yaml) may come later than this."""
    async with AsyncExitStack() as stack:
        cluster = await Cluster.connect(kubeconfig, user_agent="aimlab-kserve")
        stack.push_async_callback(cluster.close)
        if with_webhook:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            await stack.enter_async_context(webhook(cluster, version, folder))
        mirror = Informer(cluster, WATCHED)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mirror.run())
            tasks.create_task(control(cluster, mirror, partial(plan, version=version)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="aimlab.kserve", description=__doc__)
    parser.add_argument("--kubeconfig", required=True, help="which cluster to serve")
    of_kserve = "as which version of KServe (default: %(default)s)"
    parser.add_argument("--version", choices=VERSIONS, default="0.16", help=of_kserve)
    by_webhook = "also validate InferenceServices by a webhook, on loopback"
    parser.add_argument("--webhook", action="store_true", help=by_webhook)
    options = parser.parse_args()
    run_until_signalled(
        run(options.kubeconfig, VERSIONS[options.version], with_webhook=options.webhook)
    )


if __name__ == "__main__":
    main()
