"""Flame graphs of running services, by py-spy, which `pip install py-spy` brings: it is needed for
nothing else."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.flame import flame_graph

RATE_HZ = 200


class Profiler:
    """Writes a flame graph per process into `folder`, and the stacks that it is made from."""

    def __init__(self, folder: Path) -> None:
        beside = Path(sys.executable).with_name("py-spy")
        found = str(beside) if beside.exists() else shutil.which("py-spy")
        if found is None:
            sys.exit("error: py-spy is not installed; run .venv/bin/pip install py-spy")
        folder.mkdir(parents=True, exist_ok=True)
        self._record = [found, "record", "--rate", str(RATE_HZ), "--full-filenames"]
        self._folder = folder

    @contextmanager
    def record(self, pids: Mapping[str, int]) -> Iterator[None]:
        """While the block runs."""
        recorders = {name: self._start(name, pid) for name, pid in pids.items()}
        try:
            yield
        finally:
            for recorder in recorders.values():
                recorder.send_signal(signal.SIGINT)
            for name, recorder in recorders.items():
                recorder.wait()
                stacks = self._stacks(name).read_text().splitlines()
                (self._folder / f"{name}.svg").write_text(flame_graph(f"aim-{name}", stacks))

    def _start(self, name: str, pid: int) -> "subprocess.Popen[bytes]":
        output = ["--format", "raw", "--pid", str(pid), "--output", str(self._stacks(name))]
        return subprocess.Popen(
            [*self._record, *output], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _stacks(self, name: str) -> Path:
        return self._folder / f"{name}.txt"
