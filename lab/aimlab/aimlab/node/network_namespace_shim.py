"""`python -m aimlab.node.network_namespace_shim SCRIPT [ARGUMENT …]`: run a Python console script
as if its pod had its own network.

In a pod, a process that listens on all addresses listens on those of the pod. On a node without
network namespaces all pods share the machine's addresses, so that two of them could not use the
same port. Here, "all addresses" (no host, in asyncio) means the pod's loopback address,
AIMLAB_POD_IP, and the names in AIMLAB_HOSTS (`name=address,…`) have those addresses.
"""

import os
import runpy
import socket
import sys
from typing import Any

_resolve = socket.getaddrinfo
_hosts = dict(entry.split("=") for entry in os.environ.get("AIMLAB_HOSTS", "").split(",") if entry)


def _of_the_pod(host: Any, *args: Any, **kwargs: Any) -> Any:
    return _resolve(
        os.environ["AIMLAB_POD_IP"] if host is None else _hosts.get(host, host), *args, **kwargs
    )


def main() -> None:
    socket.getaddrinfo = _of_the_pod
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
