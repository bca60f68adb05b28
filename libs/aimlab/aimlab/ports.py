"""Free loopback ports for servers that must be told theirs.

They lie below the range that the kernel takes ports of outgoing connections from (ip_local_port_range, 32768 and up by default): between the look
and the server's start nobody else comes by one.
"""

import random
import socket

FIRST_PORT, LAST_PORT = 15000, 32000


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago. Raises OSError where there are not as many."""
    found: list[int] = []
    for port in random.sample(range(FIRST_PORT, LAST_PORT), LAST_PORT - FIRST_PORT):
        if len(found) == count:
            return found
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    raise OSError(f"fewer than {count} free ports between {FIRST_PORT} and {LAST_PORT}")
