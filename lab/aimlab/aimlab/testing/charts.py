"""The chart as helm renders it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from aimctl.manifests import documents

Body = dict[str, Any]
NAMESPACE = "aim-system"
OVERLAYS = {"dev": (), "production": ("values-production.yaml",)}
"""The values files of each overlay, in the order helm gets them."""


def render(chart: Path, *arguments: str, files: tuple[str, ...] = ()) -> list[Body]:
    """`helm template` with those values files of the chart. Raises RuntimeError with helm's error
    output."""
    values = [f"--values={chart / name}" for name in files]
    command = [
        str(Path(sys.executable).with_name("helm")),
        "template",
        "aim",
        str(chart),
        f"--namespace={NAMESPACE}",
        *values,
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [body for body in documents(done.stdout) if body]


def place_of(body: Body) -> tuple[str, str, str]:
    return body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]
