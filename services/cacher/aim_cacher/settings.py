"""Settings of the cacher beyond those of every service that runs Jobs."""

import re
import ssl
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from aimservice.settings import JobSettings

LARGEST_BUNDLE_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB."""
DEBIAN_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")


def certificates(path: str) -> str:
    """The certificates of a PEM file, and nothing else of it: no comments, no keys. Raises OSError."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return "".join(f"{found}\n" for found in _CERTIFICATE.findall(text))


def _trusted(path: str) -> str:
    """Those of the file, and the system's, for what comes from public places."""
    paths = ssl.get_default_verify_paths()
    system = next((file for file in (paths.cafile, DEBIAN_BUNDLE) if file and Path(file).exists()), None)
    return certificates(path) + ("" if system is None else certificates(system))


def _readable(path: str | None) -> str | None:
    """Raises ValueError where the path has no certificates: no download could verify a server then."""
    if not path:
        return None
    try:
        ssl.create_default_context(cadata=certificates(path) or "none")
        text = _trusted(path)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ValueError(f"has no certificates in PEM form ({error})") from error
    if len(text) > LARGEST_BUNDLE_BYTES:
        raise ValueError(f"and the system's certificates have more than {LARGEST_BUNDLE_BYTES} bytes, too many for a ConfigMap")
    return path


class CacherSettings(JobSettings):
    downloader_image: str = "ghcr.io/silogen/aim-downloader:0.1.0"
    ca_bundle: Annotated[str | None, AfterValidator(_readable)] = None
    """Path of a PEM file of CAs that vouch for model stores and hubs, beside the system's, read at the start; None or empty: the system's alone."""

    def ca_text(self) -> str:
        """Certificates that download and size Jobs trust; empty for those of their image."""
        return "" if self.ca_bundle is None else _trusted(self.ca_bundle)
