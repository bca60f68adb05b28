"""What a model image prints when it is asked which profiles it has: some log lines, then a JSON
array. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

NOISE = (
    "INFO 01-01 00:00:00 [__init__.py:239] Automatically detected platform rocm.",
    (
        "WARNING 01-01 00:00:00 [env.py:17] [lab] no accelerator found, profiles are listed from"
        " the table"
    ),
)


@dataclass(frozen=True, slots=True)
class Model:
    """What the image serves. `size_gb` is in GiB, 0 for unknown."""

    name: str
    source: str
    size_gb: float


def profiles(model: Model, env: Mapping[str, str]) -> list[dict[str, object]]:
    """The one profile that fits what the variables AIM_METRIC, AIM_PRECISION, AIM_GPU_MODEL,
    AIM_GPU_COUNT and AIM_TENSOR_PARALLELISM ask for."""
    metric = env.get("AIM_METRIC") or "latency"
    precision = env.get("AIM_PRECISION") or "auto"
    precision = "fp32" if precision == "auto" else precision
    gpu, count = env.get("AIM_GPU_MODEL") or "MI300X", int(env.get("AIM_GPU_COUNT") or 1)
    parallel = int(env.get("AIM_TENSOR_PARALLELISM") or count)
    metadata = {
        "engine": "lab",
        "gpu": gpu,
        "precision": precision,
        "gpu_count": count,
        "metric": metric,
    }
    profile = {
        "model": model.name,
        "quantized_model": model.name,
        "metadata": metadata,
        "engine_args": {"tensor-parallel-size": parallel},
        "env_vars": {"LAB_ATTENTION": "plain"},
    }
    source = {"name": model.name, "source": model.source, "size_gb": model.size_gb}
    filename = f"lab-{gpu.lower()}-{precision}-tp{parallel}-{metric}.yaml"
    return [{"filename": filename, "profile": profile, "models": [source]}]


def dry_run(model: Model, env: Mapping[str, str]) -> str:
    """The whole output."""
    return "\n".join([*NOISE, json.dumps(profiles(model, env), indent=2)]) + "\n"
