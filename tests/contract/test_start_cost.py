"""The modules that a service imports: each one costs memory and CPU in every pod."""

import pytest

from aim_testing.imports import Run, Script, runs_of
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
MOST_MODULES = 780
"""As of Python 3.11, with rich, which structlog imports where it is installed; images have none."""


BASE = Script("import aimbus, aimcontroller.process, aimkube")
"""What every service imports."""


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    scripts = [Script(f"import aim_{component}.__main__") for component in COMPONENTS]
    return dict(zip(COMPONENTS, runs_of(BASE, scripts), strict=True))


@pytest.mark.parametrize("component", sorted(COMPONENTS))
def test_a_service_imports_no_heavy_module(runs: dict[str, Run], component: str) -> None:
    imported = runs[component].modules
    assert f"aim_{component}.__main__" in imported
    assert imported & HEAVY == set()
    assert len(imported) < MOST_MODULES
