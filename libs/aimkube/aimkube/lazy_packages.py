"""Packages whose `__init__` runs on first use, so that a submodule can be imported without it.

`kubernetes` and `kubernetes.aio` import all of themselves: the synchronous client, its dynamic
client, requests, jsonschema. Together that is 300 modules, 12 MB and a quarter of the CPU of a
start. Nothing of it is used here.

1. An import of a submodule works as usual, and so does every name of the package: the first access
   to one that is not there yet runs `__init__`.
2. A package that is already imported stays as it is.
"""

import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if spec is None or spec.loader is None or name == "__wrapped__":
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def defer_init(*packages: str) -> None:
    """Enter `packages` into sys.modules without running them, a parent before its children.

    Raises ModuleNotFoundError for a package that is not installed.
    """
    for package in packages:
        if package in sys.modules:
            continue
        spec = find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        module = sys.modules[package] = module_from_spec(spec)
        module.__class__ = _LazyPackage
        parent, _, child = package.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
