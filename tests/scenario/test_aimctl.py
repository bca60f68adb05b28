"""The commands people start with, as they start them."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimctl.manifests import crds
from aimkube import Cluster
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.cli.quickstart import MODEL_FOLDER
from aimschema.names import SYSTEM_NAMESPACE

BIN = Path(sys.executable).parent
AIMCTL = str(BIN / "aimctl")
AIMLAB = str(BIN / "aimlab")
pytestmark = pytest.mark.timeout(180)


def processes_with(text: str) -> list[str]:
    """Running processes that mention `text` in their command line or log into a file of it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                about = f"{line.decode(errors='replace')} > {(entry / 'fd' / '1').readlink()}"
            except OSError:
                continue
            if text in about:
                found.append(about)
    return found


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that the test started; what is still running at its end is killed."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()


def start(
    started: list[subprocess.Popen[str]], *command: str, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | (env or {}),
    )
    started.append(process)
    return process


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it printed up to the line that has `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} never came, but:\n{''.join(lines)}")


def check_keys(output: str, state: Path) -> None:
    """The NATS server accepts no client without a key, and accepts the printed variables; no seed
    is printed, logged or readable by others."""
    env = dict(re.findall(r"\b(AIM_NATS_(?:URL|CREDS|CA))=(\S+)", output))
    assert env.keys() == {"AIM_NATS_URL", "AIM_NATS_CREDS", "AIM_NATS_CA"}
    listed = list_dead_letters(env)
    assert (listed.returncode, listed.stdout) == (0, "no dead letters\n"), listed.stdout
    listed = list_dead_letters(
        {"AIM_NATS_URL": env["AIM_NATS_URL"], "AIM_NATS_CA": env["AIM_NATS_CA"]}
    )
    assert (listed.returncode, "AIM_NATS_CREDS: the server requires an NKey" in listed.stdout) == (
        1,
        True,
    ), listed.stdout
    files = [path for path in (state / "nats-keys").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {
        path.stat().st_mode & 0o077 for path in (*{file.parent for file in files}, state / "nats")
    } == {0}
    seeds = [path.read_text() for path in files if path.name == "nkey.seed"]
    logs = [path.read_text() for path in (state / "log").iterdir()]
    assert not any(seed in text for seed in seeds for text in (output, *logs))


def list_dead_letters(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    here = {name: value for name, value in os.environ.items() if not name.startswith("AIM_")}
    return subprocess.run(
        [AIMCTL, "dead"],
        env=here | env | {"COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_demo_proves_the_whole_way_and_leaves_nothing_behind(
    started: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MODEL_FOLDER)  # as a user starts it, with the real model
    process = start(started, AIMLAB, "demo", "--state", str(tmp_path / "state"))
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    assert "✗" not in output
    for claim in (
        "the manifests are accepted",
        "the model's image was inspected",
        "service, template and cache are ready",
        "the gateway answers 200",
        "the answer comes from the file",
    ):
        assert f"✓ {claim}" in output
    assert re.search(r"verifying 91\.6 MB of 91\.6 MB at .*/s", output)
    assert "All checks passed" in output
    assert processes_with(str(tmp_path)) == []


def test_dev_prints_next_steps_and_leaves_nothing_behind(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(started, AIMLAB, "dev", "--state", str(tmp_path / "state"))
    output = read_until(process, "Ctrl-C stops everything")
    assert f"export KUBECONFIG={tmp_path / 'state' / 'kubeconfig'}" in output
    check_keys(output, tmp_path / "state")
    assert re.findall(r"^  (kubectl apply|kubectl wait|curl)", output, re.MULTILINE) == [
        "kubectl apply",
        "kubectl wait",
        "curl",
    ]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert processes_with(str(tmp_path)) == []


async def test_up_runs_the_services_against_the_current_kubeconfig(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    async with ApiServer() as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        cluster = await Cluster.connect(str(tmp_path / "kubeconfig"))
        for crd in crds():
            await cluster.create(crd)
        await cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
        )
        await cluster.close()
        process = start(
            started,
            AIMCTL,
            "up",
            "--state",
            str(tmp_path / "state"),
            env={"KUBECONFIG": str(tmp_path / "kubeconfig")},
        )
        output = await asyncio.to_thread(read_until, process, "ready: ")
        assert "embedded NATS server at nats://127.0.0.1:" in output
        await asyncio.to_thread(check_keys, output, tmp_path / "state")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
    assert processes_with(str(tmp_path)) == []
