"""Free loopback ports for servers that take their port as an argument.

They lie below the range of outgoing connections (ip_local_port_range, 32768 and up by default).
Each number is held as a UDP port, which no server here uses, so that no other process takes it
before the server starts.
"""

import random
import socket
from collections import deque

FIRST_PORT, LAST_PORT = 15000, 32000
HELD_AT_MOST = 256
_held: deque[socket.socket] = deque()


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago. Raises OSError where there are not as many."""
    found: list[int] = []
    for port in random.sample(range(FIRST_PORT, LAST_PORT), LAST_PORT - FIRST_PORT):
        if len(found) == count:
            return found
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            held.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        found.append(port)
        _held.append(held)
        if len(_held) > HELD_AT_MOST:
            _held.popleft().close()
    raise OSError(f"fewer than {count} free ports between {FIRST_PORT} and {LAST_PORT}")
