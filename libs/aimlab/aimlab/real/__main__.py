"""`python -m aimlab.real [COMMAND …]`: run COMMAND beside a cluster of real parts.

Parts that are missing are built first. COMMAND finds the cluster by KUBECONFIG, in a network of its
own; its exit code is this one's. Without COMMAND the kubeconfig is printed, and how to get into the
network, and everything runs until Ctrl-C.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from aimlab.real import network
from aimlab.real.cluster import FOLDER, real_cluster
from aimlab.real.parts import CACHE, PartError, Parts, build_parts, cache_folder


async def run(parts: Parts, cache: Path, command: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="aim-real-", ignore_cleanup_errors=True) as folder:
        async with real_cluster(Path(folder), parts) as cluster:
            if not command:
                print(f"export KUBECONFIG={cluster.kubeconfig}")
                print(f"in its network: nsenter --target {os.getpid()} --net COMMAND", flush=True)
                await asyncio.Event().wait()
            env = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), FOLDER: folder, CACHE: str(cache)}
            env.pop("KUBEBUILDER_ASSETS", None)
            return await (await asyncio.create_subprocess_exec(*command, env=env)).wait()


def main() -> None:
    cache = cache_folder(os.environ)
    try:
        parts = build_parts(cache)
        network.enter()
        with contextlib.suppress(KeyboardInterrupt):
            sys.exit(asyncio.run(run(parts, cache, sys.argv[1:])))
    except (PartError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
