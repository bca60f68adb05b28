"""Prometheus' own tools, which `make test` fetches as a Debian package without installing it."""

import os
import shutil
from pathlib import Path

import pytest

FETCHED = Path(__file__).parents[2] / ".venv" / "prometheus" / "usr" / "bin"


@pytest.fixture(scope="session")
def promtool() -> str:
    """Its path. Without it the test is skipped, and in CI it fails."""
    found = shutil.which("promtool", path=f"{FETCHED}{os.pathsep}{os.environ['PATH']}")
    if found is not None:
        return found
    missing = "promtool is missing: run `make promtool`, which needs apt-get, or put it on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)
