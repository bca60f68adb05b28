"""A network namespace of our own, in which pods have addresses that are not loopback addresses.

A real API server wants such addresses in EndpointSlices. Nothing in it reaches anything outside,
and nothing outside reaches it. Linux only; needs root or user namespaces, and iproute2.
"""

import ctypes
import ipaddress
import os
import socket
import subprocess
from pathlib import Path

POD_NETWORK = ipaddress.IPv4Network("10.244.0.0/16")
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def enter() -> None:
    """Moves this process, which must have one thread, into a new network that has POD_NETWORK.

    Raises OSError, CalledProcessError.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if user else 0)):
        number = ctypes.get_errno()
        needed = "root, or user namespaces (sysctl user.max_user_namespaces)"
        raise OSError(number, f"no network of our own: {os.strerror(number)}; needed is {needed}")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "local", str(POD_NETWORK), "dev", "lo"], check=True)


def has_pod_network() -> bool:
    """Whether this process can listen on the addresses of POD_NETWORK."""
    with socket.socket() as probe:
        try:
            probe.bind((str(POD_NETWORK[1]), 0))
        except OSError:
            return False
    return True
