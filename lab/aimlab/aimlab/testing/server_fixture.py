"""On which API server scenarios run: a double, or with AIM_TEST_KUBECONFIG (which tests/cluster
sets) one that is there.

Use it by `pytest_plugins = ["aimlab.testing.server_fixture"]` in a test module.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimlab.apiserver import ApiServer

KUBECONFIG = "AIM_TEST_KUBECONFIG"


@pytest.fixture(scope="session")
def external_server() -> Path | None:
    """The kubeconfig of an API server that is there; None where each test starts a double."""
    kubeconfig = os.environ.get(KUBECONFIG)
    return Path(kubeconfig) if kubeconfig else None


@pytest.fixture(scope="session", autouse=True)
def nothing_reaches_into_a_double(external_server: Path | None) -> Iterator[None]:
    """On an API server that is there, this process holds no double whose memory a test could
    look into."""
    yield
    assert external_server is None or not [
        held for held in gc.get_objects() if isinstance(held, ApiServer)
    ]
