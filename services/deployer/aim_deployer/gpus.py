"""The GPU table: the resource, the node labels and the tolerations of each GPU model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

FORM = (
    "vendor: resource, label, tolerations (optional), models: {model: [values] or {values, added:"
    " {render version: [values]}, tolerations}}"
)
TOLERATION = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}
Toleration = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gpu:
    """`resource` is requested per GPU; `label` In `values` is the node affinity.

    `added`: values that came later, with the render version from which on they count.
    `tolerations`: beside that of the resource's name.
    """

    resource: str
    label: str
    values: tuple[str, ...]
    added: Mapping[str, int] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()

    def values_in(self, version: int) -> list[str]:
        """The values of a render version."""
        return [value for value in self.values if self.added.get(value, 1) <= version]


GpuTable = Mapping[str, Gpu]


def load(extension: str | None) -> GpuTable:
    """The built-in table, extended and overridden by a mounted file. Raises OSError or ValueError
    that names the file."""
    built_in = read(resources.files("aim_deployer").joinpath("gpus.yaml").read_text(), "gpus.yaml")
    return (
        built_in
        if extension is None
        else {**built_in, **read(Path(extension).read_text(), extension)}
    )


def read(text: str, source: str) -> dict[str, Gpu]:
    table: dict[str, Gpu] = {}
    try:
        for vendor in yaml.safe_load(text).values():
            for model, entry in vendor["models"].items():
                table[str(model)] = _gpu(
                    vendor, str(model), entry if isinstance(entry, dict) else {"values": entry}
                )
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{source} is not a GPU table ({FORM}): {error!r}") from error
    return table


def _gpu(vendor: Mapping[str, Any], model: str, entry: Mapping[str, Any]) -> Gpu:
    unknown = entry.keys() - {"values", "added", "tolerations"}
    if unknown:
        raise ValueError(f"unknown keys of {model}: {', '.join(sorted(map(str, unknown)))}")
    added = {
        _quote(value, model): int(version)
        for version, values in (entry.get("added") or {}).items()
        for value in values
    }
    tolerations = [*(vendor.get("tolerations") or ()), *(entry.get("tolerations") or ())]
    return Gpu(
        resource=vendor["resource"],
        label=vendor["label"],
        values=(*(_quote(value, model) for value in entry["values"]), *added),
        added=added,
        tolerations=tuple(_toleration(each, model) for each in tolerations),
    )


def _quote(value: object, model: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"value {value!r} of {model} must be quoted")
    return value


def _toleration(toleration: Mapping[str, Any], model: str) -> Toleration:
    """Check the fields of a core/v1 Toleration."""
    for name, value in toleration.items():
        if name not in TOLERATION or not isinstance(value, TOLERATION[name]):
            raise TypeError(
                f"toleration of {model}: {name}: {value!r} is not a field of core/v1 Toleration"
            )
    return dict(toleration)
