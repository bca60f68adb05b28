"""`python -m aimlab.real [--alone] [COMMAND …]`: run COMMAND beside a cluster of real parts.

Parts that are missing are built first. COMMAND finds the cluster by KUBECONFIG, in a network of its
own; its exit code is this one's. Without COMMAND the kubeconfig is printed, and how to get into the
network, and everything runs until Ctrl-C. With --alone there are etcd and kube-apiserver only.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from aimlab.envtest import kube_apiserver
from aimlab.real import network
from aimlab.real.cluster import FOLDER, audit_flags, real_cluster
from aimlab.real.parts import CACHE, PartError, Parts, build_parts, cache_folder

ALONE = "--alone"


async def run(parts: Parts, cache: Path, command: list[str], *, alone: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="aim-real-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        async with (
            kube_apiserver(parts.bin, place, more=audit_flags(place))
            if alone
            else real_cluster(place, parts)
        ) as kubeconfig:
            if not command:
                print(f"export KUBECONFIG={kubeconfig}")
                print(
                    f"in its network: nsenter --target {os.getpid()} --net COMMAND (not root:"
                    " --user too)",
                    flush=True,
                )
                await asyncio.Event().wait()
            env = os.environ | {"KUBECONFIG": str(kubeconfig), FOLDER: folder, CACHE: str(cache)}
            env.pop("KUBEBUILDER_ASSETS", None)
            return await (await asyncio.create_subprocess_exec(*command, env=env)).wait()


def main() -> None:
    cache, command = cache_folder(os.environ), sys.argv[1:]
    alone = command[:1] == [ALONE]
    try:
        parts = build_parts(cache)
        network.enter()
        with contextlib.suppress(KeyboardInterrupt):
            sys.exit(asyncio.run(run(parts, cache, command[alone:], alone=alone)))
    except (PartError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
