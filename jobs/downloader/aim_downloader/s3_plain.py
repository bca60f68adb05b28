"""Signs plain requests for the objects of a bucket (AWS signature version 4).

The address of the bucket and the scope of the signature are those of the listing, which botocore
sent itself. A request costs 0.1 ms this way, a call of the client ten times as much.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

from aim_downloader.plain import has_proxy

_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^,\s]+/\d{8}/([^/,\s]+)/s3/aws4_request,")


@dataclass(frozen=True)
class Signer:
    """`base_url` ends in a slash; a key comes after it. `credentials` are those of aiobotocore."""

    base_url: str
    region: str
    credentials: Any

    def url(self, key: str) -> str:
        return self.base_url + quote(key, safe="/~")

    async def headers(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """These headers, and those of the signature. Refreshes credentials that expire."""
        request = AWSRequest("GET", url, headers=headers)
        frozen = await self.credentials.get_frozen_credentials()
        S3SigV4Auth(frozen, "s3", self.region).add_auth(request)
        return dict(request.headers.items())


def signer_of(url: str, authorization: str, credentials: Any) -> Signer | None:
    """The signer for a bucket, from a listing of it that was sent. None with another form of
    signature, or behind a proxy."""
    match = _SCOPE.match(authorization)
    parts = urlsplit(url)
    base_url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
    return Signer(base_url, match[1], credentials) if match and not has_proxy(base_url) else None
