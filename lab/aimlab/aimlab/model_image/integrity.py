"""Whether a cached model is there and whole: each file against the downloader's manifest, and
against the source's own sums where they are known."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

MANIFEST_NAME = ".aim-manifest.json"


class IntegrityError(Exception):
    """The cache cannot be served from; the message names the file and what is wrong with it."""


def check(folder: Path, source_sums: Mapping[str, str] | None) -> dict[str, str]:
    """The sha256 of every file of the manifest, computed from the files. `source_sums`: sha256 by
    path as the source has it, None where unknown.

    Raises IntegrityError.
    """
    expected = read_manifest(folder)
    for name, checksum in (source_sums or {}).items():
        if expected.setdefault(name, checksum) != checksum:
            raise IntegrityError(
                f"{folder / name}: the manifest has sha256 {expected[name]}, the source has"
                f" {checksum}"
            )
    unknown = sorted(expected.keys() - source_sums.keys()) if source_sums is not None else []
    if unknown:
        raise IntegrityError(f"{folder / unknown[0]}: the source has no such file")
    found: dict[str, str] = {}
    for name, checksum in sorted(expected.items()):
        found[name] = sha256_of(folder / name)
        if found[name] != checksum:
            raise IntegrityError(f"{folder / name}: sha256 is {found[name]}, expected {checksum}")
    return found


def read_manifest(folder: Path) -> dict[str, str]:
    """sha256 by path. Raises IntegrityError."""
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_bytes())
        return {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    except FileNotFoundError:
        raise IntegrityError(
            f"{path} is not there: the model was never downloaded completely"
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise IntegrityError(f"{path} is not a manifest: {error}") from error


def sha256_of(path: Path) -> str:
    """Raises IntegrityError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
