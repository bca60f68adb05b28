"""The manifests of the repository that this runs from."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it


def documents(text: str) -> list[Any]:
    """All YAML documents of a text; an empty one is None. Raises YAMLError."""
    return list(yaml.load_all(text, Loader=_LOADER))


def repository() -> Path:
    """The checkout that this runs from. Raises RuntimeError outside a checkout."""
    folder = Path(str(resources.files("aimctl"))).parents[2]
    if not (folder / "deploy" / "crds").is_dir():
        raise RuntimeError("deploy/crds is missing: run this from a checkout of the repository")
    return folder


def crds() -> list[dict[str, Any]]:
    """The five kinds, as deploy/crds has them."""
    return _read_manifests("crds")


def rbac() -> list[dict[str, Any]]:
    """The ServiceAccounts of the six services and what they may do, as deploy/rbac has them."""
    return _read_manifests("rbac")


def _read_manifests(folder: str) -> list[dict[str, Any]]:
    files = sorted((repository() / "deploy" / folder).glob("*.yaml"))
    return [body for file in files for body in documents(file.read_text())]
