"""Which manifest of an image index is for linux/amd64 (OCI image specification, "Image Index").
Pure and total.

1. `platform` is optional in an entry, and so are its fields in what some tools write: such an entry
   is undetermined until its manifest's config is read.
2. Attestations (platform unknown/unknown, as BuildKit writes them) and artifacts are no images.
"""

from dataclasses import dataclass
from typing import Any

from aim_discovery.image import is_digest

OS = "linux"
ARCHITECTURE = "amd64"
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONFIG_TYPES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_ATTESTATION = "vnd.docker.reference.type"
_ALIASES = {"x86_64": ARCHITECTURE, "x86-64": ARCHITECTURE, "aarch64": "arm64"}
_UNKNOWN = "unknown"

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entries:
    """Digests of an index: of the images for linux/amd64, best first; of undetermined ones;
    `others`: platforms of the rest.

    `artifacts` counts what is no image. An entry without a digest counts for nothing.
    """

    ours: tuple[str, ...] = ()
    undetermined: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    artifacts: int = 0


def read_index(manifests: list[Any]) -> Entries:
    ours: list[tuple[bool, str]] = []
    undetermined: list[str] = []
    others: list[str] = []
    artifacts = 0
    for entry in manifests:
        if not isinstance(entry, dict) or not is_digest(str(entry.get("digest"))):
            continue
        if not _is_image(entry):
            artifacts += 1
            continue
        digest = str(entry["digest"])
        os, architecture = platform_of(entry.get("platform"))
        if (os, architecture) == (OS, ARCHITECTURE):
            ours.append((bool(entry["platform"].get("variant")), digest))
        elif {os, architecture} <= {"", OS, ARCHITECTURE}:
            undetermined.append(digest)
        else:
            others.append(platform_name(os, architecture))
    best_first = [digest for _, digest in sorted(ours, key=lambda each: each[0])]
    return Entries(tuple(best_first), tuple(undetermined), tuple(others), artifacts)


def platform_of(described: object) -> tuple[str, str]:
    """os and architecture of an entry's `platform` or of a config; empty where they are absent
    or unknown."""
    found = described if isinstance(described, dict) else {}
    os, architecture = (_text(found.get(name)) for name in ("os", "architecture"))
    return os, _ALIASES.get(architecture, architecture)


def platform_name(os: str, architecture: str) -> str:
    return f"{os or _UNKNOWN}/{architecture or _UNKNOWN}"[:40]


def _is_image(entry: Body) -> bool:
    annotations = entry.get("annotations")
    if isinstance(annotations, dict) and _ATTESTATION in annotations:
        return False
    kinds = (None, "", *INDEX_TYPES, *MANIFEST_TYPES)
    return entry.get("mediaType") in kinds and entry.get("artifactType") in (
        None,
        "",
        *CONFIG_TYPES,
    )


def _text(value: object) -> str:
    text = value.lower() if isinstance(value, str) else ""
    return "" if text == _UNKNOWN else text
