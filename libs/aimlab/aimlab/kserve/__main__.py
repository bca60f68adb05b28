"""`python -m aimlab.kserve`: the stand-in for KServe in the laptop cluster."""

import argparse
import asyncio
from functools import partial

from aimkube import Cluster
from aimlab.control import control
from aimlab.kserve.controller import WATCHED, plan
from aimlab.kserve.modes import VERSIONS, Version
from aimlab.mirror import Mirror
from aimlab.service import run_until_told


async def run(kubeconfig: str, version: Version) -> None:
    """Runs the controller until cancelled. The InferenceService CRD (aimlab/crds/kserve.yaml) may come later than this."""
    cluster = await Cluster.connect(kubeconfig, user_agent="aimlab-kserve")
    try:
        mirror = Mirror(cluster, WATCHED)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mirror.run())
            tasks.create_task(control(cluster, mirror, partial(plan, version=version)))
    finally:
        await cluster.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="aimlab.kserve", description=__doc__)
    parser.add_argument("--kubeconfig", required=True, help="which cluster to serve")
    of_kserve = "as which version of KServe (default: %(default)s)"
    parser.add_argument("--version", choices=VERSIONS, default="0.16", help=of_kserve)
    options = parser.parse_args()
    run_until_told(run(options.kubeconfig, VERSIONS[options.version]))


if __name__ == "__main__":
    main()
