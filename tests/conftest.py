"""The fork server for all tests below, and which tests need real servers."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aimctl.component_registry import SERVICES
from aimlab import forkserver
from aimlab.real.cluster import FOLDER

collect_ignore = [] if FOLDER in os.environ else ["real"]  # needs the parts of `make test-real`

IMPORTED = [
    *(f"aim_{service}.__main__" for service in SERVICES),
    *(f"aimlab.{part}.__main__" for part in ("apiserver", "node", "kserve")),
    "aimctl.__main__",
]


@pytest.fixture(scope="session", autouse=True)
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services and commands are forked from a process that has imported them already."""
    with socket.socket(socket.AF_UNIX) as listening:
        place = tmp_path_factory.mktemp("fork") / "socket"
        listening.bind(str(place))
        listening.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "aimlab.forkserver", str(listening.fileno()), *IMPORTED],
            stdin=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        )
    os.environ[forkserver.SOCKET] = str(place)
    yield
    del os.environ[forkserver.SOCKET]
    server.kill()
    server.wait()
