"""What holds for all tests of the repository.

hypothesis tries the same examples in every run, so that only a change makes a test fail.
`HYPOTHESIS_PROFILE=search` tries new ones. No example has a deadline, since a busy machine
is slow.
"""

import contextlib
import gc
import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from aimctl.component_registry import SERVICES
from aimlab import forkserver

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# The shell ignores SIGINT for what a script starts in the background, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Servers written in Go, such as the S3 server, collect garbage less often: half the CPU time.
os.environ.setdefault("GOGC", "200")
os.environ.setdefault("GOMEMLIMIT", "400MiB")


# What the collection of tests makes lives until the end: the collector need not look at it again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a command that a test calls in this process does to logging ends with the test."""
    yield
    structlog.reset_defaults()


IMPORTED = [
    *(f"aim_{service}.__main__" for service in SERVICES),
    *(f"aimlab.{part}.__main__" for part in ("apiserver", "node", "kserve")),
    "aimctl.__main__",
    "aimlab.model_image.__main__",
    "aim_downloader.main",
    # what these import and parse when they connect
    "aim_testing.api_models",
    "aim_watcher.nats_init",
    "aioboto3.s3.inject",
    "multiprocessing.managers",
    "cryptography.hazmat.backends.openssl",
    "encodings.idna",
    "importlib.resources.readers",
    "nkeys",
]
STARTING = ("tests/", "lab/", "services/")
"""Folders whose tests start processes by `aimctl.local.processes`."""


@pytest.fixture(scope="session", autouse=True)
def fork_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Services, pods and commands are forked from a process that has imported them already."""
    started_already = forkserver.SOCKET in os.environ  # for all workers, or by a test
    starting = any(item.nodeid.startswith(STARTING) for item in request.session.items)
    if started_already or not starting:
        yield
        return
    with forked_from(tmp_path_factory.mktemp("fork")):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """With workers, one server for all of them: a second of CPU and 100 MB each."""
    if not config.getoption("numprocesses", None) or forkserver.SOCKET in os.environ:
        return (yield)
    with tempfile.TemporaryDirectory() as folder, forked_from(Path(folder)):
        return (yield)


@contextlib.contextmanager
def forked_from(folder: Path) -> Iterator[None]:
    with forkserver.fork_server(folder, IMPORTED) as place:
        os.environ[forkserver.SOCKET] = str(place)
        try:
            yield
        finally:
            del os.environ[forkserver.SOCKET]


LONGEST = (
    "tests/fault_catalogue/test_faults_in_turn.py",
    "tests/chaos/test_permissions.py",
    "tests/scenario/test_chart.py",
    "tests/chaos/test_world.py",
    "tests/contract/test_images.py",
    "jobs/downloader/tests/test_dialects.py",
    "tests/scenario/test_by_hand.py",
    "tests/chaos/test_orders.py",
    "libs/aimcontroller/tests/test_controller.py",
    "tests/fault_catalogue/test_faults.py",
    "tests/scenario/test_present.py",
    "tests/scenario/test_aimctl.py",
    "libs/aimbus/tests/test_mirror.py",
    "tests/contract/test_helm.py",
    "tests/scenario/test_nats_permissions.py",
    "tests/scenario/test_sources.py",
    "tests/contract/test_chart_upgrade.py",
    "tests/cluster/test_suite.py",
    "tests/contract/test_chart_rendered.py",
    "tests/contract/test_policies.py",
    "services/watcher/tests/test_scenario.py",
    "jobs/downloader/tests/test_s3.py",
    "tests/chaos/test_stuck.py",
    "jobs/downloader/tests/test_volumes.py",
    "tests/soak/test_soak.py",
    "lab/aimlab/tests/apiserver/test_transcripts.py",
    "tests/contract/test_forged_events.py",
    "tests/scenario/test_doctor.py",
    "tests/scenario/test_render_upgrade.py",
    "tests/chaos/test_upgrade.py",
    "tests/soak/test_histories.py",
    "tests/scenario/test_private_ca.py",
    "tests/scenario/test_tenants.py",
    "tests/scenario/test_chart_nats.py",
    "tests/scenario/test_main_job.py",
)
"""Files that take 20 seconds and more. They start first, so that no worker is left alone with one
at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))
