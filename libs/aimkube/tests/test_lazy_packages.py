"""A package with a deferred `__init__` behaves like any other package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimkube.lazy_packages import defer_init

PARENT = "aim_lazy_example"
CHILD = f"{PARENT}.child"


@pytest.fixture(autouse=True)
def package(tmp_path: Path) -> Iterator[None]:
    child = tmp_path / PARENT / "child"
    child.mkdir(parents=True)
    (tmp_path / PARENT / "__init__.py").write_text("from . import child\nvalue = child.value\n")
    (child / "__init__.py").write_text("from . import heavy\nvalue = 7\n")
    (child / "heavy.py").write_text("")
    (child / "light.py").write_text("value = 3\n")
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith(PARENT)]:
        del sys.modules[name]


def _import(name: str) -> object:
    __import__(name)
    return sys.modules[name]


def test_a_submodule_is_imported_without_its_package() -> None:
    defer_init(PARENT, CHILD)
    assert vars(_import(f"{CHILD}.light"))["value"] == 3
    assert f"{CHILD}.heavy" not in sys.modules


def test_the_first_name_runs_the_package() -> None:
    defer_init(PARENT, CHILD)
    assert getattr(_import(PARENT), "value", None) == 7
    assert f"{CHILD}.heavy" in sys.modules


def test_a_name_of_no_package_is_missing() -> None:
    defer_init(PARENT, CHILD)
    assert not hasattr(_import(CHILD), "unknown")
    assert not hasattr(_import(CHILD), "unknown")


def test_an_imported_package_stays() -> None:
    imported = _import(PARENT)
    defer_init(PARENT, CHILD)
    assert _import(PARENT) is imported
    assert f"{CHILD}.heavy" in sys.modules


def test_a_package_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="aim_not_installed"):
        defer_init("aim_not_installed")
