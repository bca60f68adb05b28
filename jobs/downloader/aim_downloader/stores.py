"""The S3 stores the environment names, in their order. Pure.

`AIM_S3_<i>_ENDPOINT_URL`, `_REGION`, `_ACCESS_KEY_ID`, `_SECRET_ACCESS_KEY`; the endpoint wins over the region. With none of them,
one store: whatever the default AWS chain finds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_NAME = re.compile(r"AIM_S3_(\d+)_(ENDPOINT_URL|REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY)")


@dataclass(frozen=True)
class Store:
    """One place to ask. Empty strings where the environment says nothing."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """How messages call it; nothing secret."""
        if self.endpoint_url:
            parts = urlsplit(self.endpoint_url)
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return f"AWS {self.region}".rstrip()


def stores_from(env: Mapping[str, str]) -> tuple[Store, ...]:
    """At least one store, by ascending number."""
    found: dict[int, dict[str, str]] = {}
    for name, value in env.items():
        if (match := _NAME.fullmatch(name)) and value.strip():
            found.setdefault(int(match[1]), {})[match[2].lower()] = value.strip()
    return tuple(Store(**found[number]) for number in sorted(found)) or (Store(),)
