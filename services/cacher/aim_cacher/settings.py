"""Settings of the cacher, in addition to those of every service that runs Jobs."""

import re
import ssl
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from aimcontroller.settings import JobSettings

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


class CacherSettings(JobSettings):
    downloader_image: str = f"ghcr.io/silogen/aim-downloader:{version('aim-cacher')}"
    ca_bundle: Annotated[str | None, AfterValidator(_readable)] = None
    """Path of a PEM file with CAs for model stores and hubs, in addition to the public ones; read
    at the start. None or empty: the public ones only."""

    def ca_text(self) -> str:
        """Certificates that the Jobs trust in addition to the public ones; empty for none."""
        return "" if self.ca_bundle is None else certificates(self.ca_bundle)
