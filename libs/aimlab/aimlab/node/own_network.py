"""`python -m aimlab.node.own_network SCRIPT [ARGUMENT …]`: run a Python console script as if its pod had a network of its own.

In a pod, a process that listens on all addresses listens on the pod's. On a node without network namespaces all pods share the
machine's, so that two of them could not have the same port. Here, all addresses means the pod's loopback address, AIMLAB_POD_IP.
"""

import os
import runpy
import socket
import sys
from typing import Any

ALL = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (what is replaced)


class PodSocket(socket.socket):
    """A socket that knows one address, the pod's."""

    def bind(self, address: Any, /) -> None:
        if self.family == socket.AF_INET and address[0] in ALL:
            address = (os.environ["AIMLAB_POD_IP"], *address[1:])
        super().bind(address)


def main() -> None:
    socket.socket = PodSocket  # type: ignore[misc]
    socket.has_ipv6 = False
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
