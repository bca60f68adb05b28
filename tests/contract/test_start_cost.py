"""The modules that a service imports: each one costs memory and CPU in every pod."""

import subprocess
import sys

import pytest

from aimschema.reasons import COMPONENTS

HEAVY = frozenset(
    {
        "aimlab",
        "boto3",
        "cryptography",
        "google",
        "huggingface_hub",
        "jsonschema",
        "kubernetes.aio.dynamic",
        "kubernetes.client",
        "kubernetes.dynamic",
        "kubernetes_validate",
        "nacl",
        "numpy",
        "opentelemetry.sdk",
        "requests",
        "typer",
        "unittest",
    }
)
MOST_MODULES = 760
"""As of Python 3.11, with rich, which structlog imports where it is installed; images have none."""


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("component", sorted(COMPONENTS))
def test_a_service_imports_no_heavy_module(component: str) -> None:
    imported = imported_by(f"aim_{component}.__main__")
    assert imported & HEAVY == set()
    assert len(imported) < MOST_MODULES
