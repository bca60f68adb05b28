"""The GPU table: which resource and which nodes a GPU model means."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml


@dataclass(frozen=True, slots=True)
class Gpu:
    """`resource` is requested per GPU; `label` In `values` is the node affinity."""

    resource: str
    label: str
    values: tuple[str, ...]


GpuTable = Mapping[str, Gpu]


def load(extension: str | None) -> GpuTable:
    """The built-in table, and what a mounted file adds to it or changes in it. Raises OSError or ValueError naming the file."""
    built_in = read(resources.files("aim_deployer").joinpath("gpus.yaml").read_text(), "gpus.yaml")
    return built_in if extension is None else {**built_in, **read(Path(extension).read_text(), extension)}


def read(text: str, source: str) -> dict[str, Gpu]:
    table: dict[str, Gpu] = {}
    try:
        for vendor in yaml.safe_load(text).values():
            for model, values in vendor["models"].items():
                table[str(model)] = Gpu(vendor["resource"], vendor["label"], tuple(_quoted(value, model) for value in values))
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{source} is not a GPU table (vendor: resource, label, models: {{model: [values]}}): {error!r}") from error
    return table


def _quoted(value: object, model: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"value {value!r} of {model} must be quoted")
    return value
