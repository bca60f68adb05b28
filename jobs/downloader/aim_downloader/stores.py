"""The S3 stores of the environment, in their order. Pure.

`AIM_S3_<i>_ENDPOINT_URL`, `_REGION`, `_ACCESS_KEY_ID`, `_SECRET_ACCESS_KEY`, `_ADDRESSING`; the
endpoint wins over the region. A store without keys, or no store at all, means the default AWS
credential chain. That includes an identity that the cloud gives the pod's ServiceAccount.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aim_downloader.exit_codes import Failure, Outcome

_NAME = re.compile(r"AIM_S3_(\d+)_(ENDPOINT_URL|REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY|ADDRESSING)")
ADDRESSING = ("path", "virtual", "auto")
"""Position of the bucket's name: in the path, or before the host's name (virtual). `auto` is the
path if the store has an endpoint URL, else the default of botocore."""


@dataclass(frozen=True)
class Store:
    """One S3 store. Empty strings mean: not set. `variables` is the prefix of its environment
    variables."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    addressing: str = "auto"
    variables: str = field(default="AIM_S3_0_", compare=False)

    @property
    def label(self) -> str:
        """The name of the store in messages; without secrets."""
        if self.endpoint_url:
            try:
                parts = urlsplit(self.endpoint_url)
            except ValueError:
                return f"{self.variables}ENDPOINT_URL"
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return f"AWS {self.region}".rstrip()

    @property
    def addressing_style(self) -> str:
        """The addressing style as botocore names it."""
        return "path" if self.addressing == "auto" and self.endpoint_url else self.addressing


def stores_from(env: Mapping[str, str]) -> tuple[Store, ...]:
    """At least one store, by ascending number. Raises Failure that names the variable for an
    unknown addressing style."""
    found: dict[int, dict[str, str]] = {}
    for name, value in env.items():
        if (match := _NAME.fullmatch(name)) and (text := value.strip()):
            field = match[2].lower()
            found.setdefault(int(match[1]), {})[field] = (
                _addressing(name, text) if field == "addressing" else text
            )
    return tuple(
        Store(**found[number], variables=f"AIM_S3_{number}_") for number in sorted(found)
    ) or (Store(),)


def _addressing(name: str, text: str) -> str:
    if text.lower() not in ADDRESSING:
        message = f"{name} is {text!r}: set it to {', '.join(ADDRESSING[:-1])} or {ADDRESSING[-1]}"
        raise Failure(Outcome.NO_ACCESS, message)
    return text.lower()
