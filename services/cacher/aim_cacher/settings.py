"""Settings of the cacher, in addition to those of every service that runs Jobs."""

import json
import re
import ssl
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from aim_cacher.environment import is_forbidden
from aim_cacher.job_options import JobOptions
from aimcontroller.settings import JobSettings
from aimschema import quantities

LARGEST_BUNDLE_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB."""
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")


def certificates(path: str) -> str:
    """Only the certificates of a PEM file: no comments, no keys. Raises OSError."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return "".join(f"{certificate}\n" for certificate in _CERTIFICATE.findall(text))


def _readable(path: str | None) -> str | None:
    """Raises ValueError where the file holds no certificates: no download could verify a server
    with it."""
    if not path:
        return None
    try:
        text = certificates(path)
        ssl.create_default_context(cadata=text or "none")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ValueError(f"has no certificates in PEM form ({error})") from error
    if len(text) > LARGEST_BUNDLE_BYTES:
        raise ValueError(
            f"has more than {LARGEST_BUNDLE_BYTES} bytes of certificates, too many for a ConfigMap"
        )
    return path


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error


def _bytes(value: object) -> object:
    """Raises ValueError for a text that is no quantity greater than 0."""
    if not isinstance(value, str):
        return value
    size_bytes = quantities.parse(value.strip()) if value.strip() else None
    if size_bytes is not None and size_bytes <= 0:
        raise ValueError("must be greater than 0, such as 50Ti")
    return size_bytes


def _without_loaders(env: dict[str, str] | None) -> dict[str, str] | None:
    """Raises ValueError for a variable that a config may not set either."""
    for name in env or {}:
        if is_forbidden(name):
            raise ValueError(f"{name} loads code or begins with AIM_; remove it")
    return env


Globs = Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_json)]


class CacherSettings(JobSettings):
    downloader_image: str = f"ghcr.io/silogen/aim-downloader:{version('aim-cacher')}"
    ca_bundle: Annotated[str | None, AfterValidator(_readable)] = None
    """Path of a PEM file with CAs for model stores and hubs, in addition to the public ones; read
    at the start. None or empty: the public ones only."""

    download_env: Annotated[
        dict[str, str] | None, NoDecode, BeforeValidator(_json), AfterValidator(_without_loaders)
    ] = None
    """JSON object of variables of every download, such as a mirror or a proxy; None: none."""
    download_service_account: str | None = None
    """Service account of download pods; it must exist in each namespace. None or empty: that of
    the namespace."""
    download_include: Globs = None
    """JSON list of globs over file names: only these are downloaded. None: all."""
    download_exclude: Globs = None
    """JSON list of globs over file names that are not downloaded. None: the downloader's own."""

    cache_quota: Annotated[int | None, BeforeValidator(_bytes)] = None
    """Storage of all caches of the cluster, as a quantity such as 50Ti. None or empty: no limit."""

    def job_options(self) -> JobOptions:
        return JobOptions(
            self.downloader_image,
            self.job_rules(),
            self.ca_text(),
            env=tuple((self.download_env or {}).items()),
            service_account=self.download_service_account or None,
            include=self.download_include,
            exclude=self.download_exclude,
            quota_bytes=self.cache_quota,
        )

    def ca_text(self) -> str:
        """Certificates that the Jobs trust in addition to the public ones; empty for none."""
        return "" if self.ca_bundle is None else certificates(self.ca_bundle)
