"""Names of the objects the control plane makes, each a pure function of what it is made for."""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache

SYSTEM_NAMESPACE = "aim-system"
"""Of the control plane, where it is not configured otherwise."""
DEFAULT_CONFIG = "default"
"""The config that counts where none is named; that it is missing is no fault."""
DISCOVERY_NAME_LENGTH = 45
MODEL_NAME_LENGTH = 45
CLAIM_SUFFIX = "-cache"
"""After the name of a ModelCache, in the name of its claim."""
LONGEST_NAME = 253
"""Of most objects (RFC 1123 subdomain)."""


def short_hash(parts: Iterable[str]) -> str:
    """Eight hex digits of sha256 over the parts; a NUL between them keeps ("a", "bc") and ("ab",
    "c") apart."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def discovery_job(template: str, inputs_hash: str) -> str:
    return f"discover-{template[:DISCOVERY_NAME_LENGTH].rstrip('-.')}-{inputs_hash}"


def discovery_config_map(template: str) -> str:
    """The template's name with `-discovery`; where that is longer than a name may be, cut, and
    unique by hash."""
    whole = f"{template}-discovery"
    cut = f"{template[: LONGEST_NAME - 19].rstrip('-.')}-{short_hash([template])}-discovery"
    return whole if len(whole) <= LONGEST_NAME else cut


def image_config_map(model: str) -> str:
    """In the control plane's namespace: what the labels of a catalogue entry's image say."""
    return f"image-{model[:MODEL_NAME_LENGTH].rstrip('-.')}-{short_hash([model])}"


def cache_for(source_uri: str) -> str:
    """Name of the ModelCache made for a source: readable, and unique by hash
    (`hf://org/Model-8B` gives `org-model-8b-<hash>`)."""
    path = source_uri.split("://", 1)[-1].split("@", 1)[0].lower()
    readable = re.sub(r"[^a-z0-9]+", "-", path).strip("-")[-45:].strip("-")
    return f"{readable or 'model'}-{short_hash([source_uri])}"


def cache_claim(cache: str) -> str:
    return f"{cache}{CLAIM_SUFFIX}"


def cache_download_job(cache: str) -> str:
    return f"{cache}-download"


def cache_size_job(cache: str) -> str:
    return f"{cache}-size"


def cache_ca(cache: str) -> str:
    """ConfigMap with the certificates that the Jobs of a cache trust."""
    return f"{cache}-ca"


def predictor_service(service: str) -> str:
    """The Kubernetes Service that KServe (Standard mode) makes for an InferenceService of this
    name."""
    return f"{service}-predictor"


@lru_cache(maxsize=4096)
def mount_path_of(source_uri: str) -> tuple[str, str] | None:
    """`(org, model)` under which the runtime looks for a source: the last two segments of its path;
    None where it has no such form.

    `@revision` is part of hf:// sources only; in an S3 key an `@` is a character like others, and
    not one of the allowed.
    """
    scheme, _, path = source_uri.partition("://")
    segments = [
        part for part in (path.split("@", 1)[0] if scheme == "hf" else path).split("/") if part
    ]
    if len(segments) < 2:
        return None
    org, model = segments[-2:]
    fits = all(
        re.fullmatch(r"[A-Za-z0-9._-]+", part) and part not in {".", ".."} for part in (org, model)
    )
    return (org, model) if fits else None
