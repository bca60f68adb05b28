"""`kubectl aim` runs aimctl as a plugin of kubectl."""

import os
import subprocess
import sys
from pathlib import Path


def test_kubectl_finds_aimctl_as_its_plugin_aim() -> None:
    folder = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    shown = subprocess.run(
        [folder / "kubectl", "aim", "--help"], env=env, capture_output=True, text=True, check=True
    )
    assert "doctor" in shown.stdout
