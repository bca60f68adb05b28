"""The client for one S3 store: aioboto3's, with our CAs, without redirects, with checked responses.

Redirects between regions of Amazon pass: botocore follows them with a new signature. A header marks
them."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader
from yarl import URL

from aim_downloader.retry import Limits
from aim_downloader.s3_errors import NotS3, Redirected
from aim_downloader.s3_plain import Signer, signer_of
from aim_downloader.stores import Store

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REGION_HEADER = "x-amz-bucket-region"
_LISTING_OR_ERROR = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?\?>)?\s*(?:<!--.*?-->\s*)*<(?:\w+:)?(?:ListBucketResult|Error)\b",
    re.DOTALL,
)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<(?:\w+:)?Error\b)")
_TEXT_BYTES_MAX = 4096


@dataclass
class Connection:
    """A client, its credentials (None without any), and the signer that its listings lead to."""

    client: S3Client
    credentials: Any
    signer: Signer | None = None

    def note_listing(self, request: Any, **_: Any) -> None:
        """Called by botocore with each listing that it sends."""
        authorization = request.headers.get("Authorization", "")
        if isinstance(authorization, bytes):
            authorization = authorization.decode()
        self.signer = signer_of(request.url, authorization, self.credentials)


@asynccontextmanager
async def connect(store: Store, limits: Limits, tls: ssl.SSLContext) -> AsyncIterator[Connection]:
    """Open during the block. Raises ValueError for an endpoint that is no URL."""
    config = AioConfig(
        http_session_cls=partial(_Session, tls),  # type: ignore[arg-type]  # (it is only called)
        s3={"addressing_style": store.addressing_style},
        retries={"total_max_attempts": 1},
        connect_timeout=30,
        read_timeout=limits.stall_s,
        max_pool_connections=limits.ranges_in_flight + limits.files_in_flight,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    base = AioSession()
    base.register_component("data_loader", _api_models())
    session = aioboto3.Session(
        botocore_session=base,
        aws_access_key_id=store.access_key_id or None,
        aws_secret_access_key=store.secret_access_key or None,
        region_name=store.region or ("us-east-1" if store.endpoint_url else None),
    )
    async with session.client(
        "s3", endpoint_url=store.endpoint_url or None, config=config
    ) as client:
        client.meta.events.register("before-parse.s3", _keep_text)
        connection = Connection(client, await base.get_credentials())
        client.meta.events.register("before-send.s3.ListObjectsV2", connection.note_listing)
        client.meta.events.register("before-send.s3.ListObjects", connection.note_listing)
        yield connection


@cache
def _api_models() -> Loader:
    """botocore's descriptions of the API, which each session would parse for 0.3 s of CPU."""
    return create_loader()


class _Session(AIOHTTPSession):
    """aiobotocore's session with this TLS context."""

    def __init__(self, tls: ssl.SSLContext, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tls = tls

    def _get_ssl_context(self) -> ssl.SSLContext:
        return self._tls

    async def _get_session(self, proxy_url: str | None) -> _Checked:
        return _Checked(await super()._get_session(proxy_url))  # type: ignore[misc]  # (not in the stubs)


@dataclass(frozen=True)
class _Checked:
    """The part of an aiohttp session that aiobotocore uses. Follows no redirect, and rejects a web
    page in place of a listing.

    botocore turns any page into an error 500, and parses a well-formed page as an empty listing.
    """

    session: aiohttp.ClientSession

    async def request(self, method: str, url: URL, **kwargs: Any) -> aiohttp.ClientResponse:
        answer = await self.session.request(method, url, allow_redirects=False, **kwargs)
        if answer.status in _REDIRECTS and _REGION_HEADER not in answer.headers:
            answer.close()
            raise Redirected(answer.headers.get("Location", ""))
        is_listing = method == "GET" and "encoding-type" in url.query
        if (
            is_listing
            and answer.status < 300
            and not _LISTING_OR_ERROR.match(body := await answer.read())
        ):
            raise NotS3(
                f"{answer.content_type} that is no listing" if body.strip() else "an empty page"
            )
        return answer


def _keep_text(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Keep the text of an error that is not S3's XML. botocore sets the names of the
    parameters."""
    body = response_dict["body"]
    if (
        response_dict["status_code"] >= 300
        and isinstance(body, bytes)
        and body
        and not _XML.match(body)
    ):
        customized_response_dict["Text"] = body[:_TEXT_BYTES_MAX].decode(errors="replace")
