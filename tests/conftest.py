"""The fork server and the model for all tests below, and which tests need real servers."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aimctl.component_registry import SERVICES
from aimlab import forkserver
from aimlab.cli.quickstart import MODEL_FOLDER, WEIGHTS, model_folder
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


@pytest.fixture(scope="session", autouse=True)
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The quickstart's model with 1 MiB of weights instead of 90 MB, which every laptop cluster
    puts into its stores and downloads."""
    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(model_folder(), folder, ignore=shutil.ignore_patterns(WEIGHTS))
    (folder / WEIGHTS).write_bytes(safetensors(os.urandom(1 << 20)))
    os.environ[MODEL_FOLDER] = str(folder)
    yield
    del os.environ[MODEL_FOLDER]


def safetensors(weights: bytes) -> bytes:
    """A file with one tensor of one byte a parameter: a length of 8 bytes, a header in JSON, the
    data."""
    shape = [len(weights)]
    header = json.dumps({"weights": {"dtype": "U8", "shape": shape, "data_offsets": [0, *shape]}})
    return len(header).to_bytes(8, "little") + header.encode() + weights
