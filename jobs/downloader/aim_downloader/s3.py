"""S3 and what speaks its protocol as a source: `s3://bucket/prefix`.

The stores are asked in order and the first in which the prefix lists anything is used. A prefix means what is under it as a folder, or the
key itself. Reads are conditional on the listed ETag, so that an object that is written anew under way is noticed, not mixed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from aim_downloader.outcome import Failure, Outcome, Retryable
from aim_downloader.paths import is_own
from aim_downloader.retry import Limits, with_tries
from aim_downloader.source import Body, Listing, Says, SourceFile
from aim_downloader.stores import Store, stores_from
from aim_downloader.uri import S3Uri
from aim_downloader.verdict import Answer, Kind, verdict

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")
_MULTIPART = re.compile(r"[0-9a-f]{32}-(\d+)")
_NOT_THERE = {"NoSuchBucket", "NoSuchKey", "InvalidBucketName", "PermanentRedirect", "404", "NotFound"}
_NO_MD5_ETAG = {"aws:kms", "aws:kms:dsse"}
"""Encryptions under which an ETag is not the content's MD5 (S3 API reference, Object)."""


@asynccontextmanager
async def open_s3(uri: S3Uri, env: Mapping[str, str], limits: Limits) -> AsyncIterator[S3Source]:
    """The source for the duration of a run."""
    async with AsyncExitStack() as stack:
        yield S3Source(uri, stores_from(env), stack, limits)


class S3Source:
    """A `Source`; see there. `listing` comes first, since it finds the store."""

    def __init__(self, uri: S3Uri, stores: Iterable[Store], stack: AsyncExitStack, limits: Limits) -> None:
        self._uri = uri
        self._stores = stores
        self._stack = stack
        self._limits = limits
        self._client: S3Client | None = None

    async def listing(self) -> Listing:
        answers = []
        for store in self._stores:
            try:
                client = await self._stack.enter_async_context(_connect(store, self._limits))
                files = await _ask(self._limits, client, self._uri)
            except Failure as error:
                answers.append(Answer(store.label, _kind(error), error.message))
            except ValueError as error:
                answers.append(Answer(store.label, "transient", str(error)))
            else:
                if files:
                    self._client = client
                    return Listing(revision_of(files), files)
                answers.append(Answer(store.label, "empty", ""))
        raise verdict(f"s3://{self._uri.bucket}/{self._uri.prefix}", answers)

    async def says(self, file: SourceFile) -> Says:
        head = await self._head(file)
        says = says_of(head)
        if match := _MULTIPART.fullmatch(says.multipart_md5):
            return await self._with_part_size(file, says, int(match[1]))
        return says

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Body]:
        version = f'"{file.tag}"' if file.tag else "*"
        try:
            client = self._connected()
            answer = await client.get_object(Bucket=self._uri.bucket, Key=file.key, Range=f"bytes={start}-{end - 1}", IfMatch=version)
            body = answer["Body"]
            async with body:
                if answer["ContentLength"] != end - start:
                    raise Retryable(f"asked for {end - start} bytes, was offered {answer['ContentLength']}")
                yield body
        except (BotoCoreError, ClientError, aiohttp.ClientError, ConnectionError) as error:
            raise trouble(error, file) from error

    async def _with_part_size(self, file: SourceFile, says: Says, parts: int) -> Says:
        """The multipart digest can be computed if all parts but the last are of one size: the first and last tell."""
        first, last = await self._head(file, PartNumber=1), await self._head(file, PartNumber=parts)
        part_bytes = int(first["ContentLength"])
        uniform = first.get("PartsCount") == parts and part_bytes * (parts - 1) + int(last["ContentLength"]) == file.size_bytes
        if uniform and part_bytes > 0:
            return Says(sha256=says.sha256, crc32=says.crc32, multipart_md5=says.multipart_md5, part_bytes=part_bytes)
        return Says(sha256=says.sha256, crc32=says.crc32)

    async def _head(self, file: SourceFile, **more: Any) -> Mapping[str, Any]:
        try:
            return await self._connected().head_object(Bucket=self._uri.bucket, Key=file.key, ChecksumMode="ENABLED", **more)
        except (BotoCoreError, ClientError, aiohttp.ClientError, ConnectionError) as error:
            raise trouble(error, file) from error

    def _connected(self) -> S3Client:
        assert self._client, "listing comes first"
        return self._client


def says_of(head: Mapping[str, Any]) -> Says:
    """What a HeadObject answer says of the content. Checksums of parts (`COMPOSITE`) and those no standard library computes are left out."""
    etag = str(head.get("ETag", "")).strip('"')
    is_md5 = head.get("ServerSideEncryption") not in _NO_MD5_ETAG and not head.get("SSECustomerAlgorithm")
    whole = head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return Says(
        sha256=_hex(head.get("ChecksumSHA256", ""), 32) if whole else "",
        crc32=_hex(head.get("ChecksumCRC32", ""), 4) if whole else "",
        md5=etag if is_md5 and _PLAIN_MD5.fullmatch(etag) else "",
        multipart_md5=etag if is_md5 and _MULTIPART.fullmatch(etag) else "",
    )


def revision_of(files: Iterable[SourceFile]) -> str:
    """One name for exactly this set of objects: a hash over key, ETag and size of each."""
    lines = sorted(f"{file.key}\0{file.tag}\0{file.size_bytes}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def kind_of(error: Exception) -> Kind:
    """What an error of the client library says about the store."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "no_access"
    if not isinstance(error, ClientError):
        return "transient"
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _NOT_THERE:
        return "not_there"
    if code in {"RequestTimeTooSkewed", "RequestTimeout", "SlowDown"}:
        return "transient"
    return "no_access" if status in {401, 403} else "not_there" if status == 404 else "transient"


def trouble(error: Exception, file: SourceFile) -> Failure | Retryable:
    """What an error means while a listed object is being read."""
    code = _code(error)
    kind = kind_of(error)
    if code in {"PreconditionFailed", "412"} or kind == "not_there":
        return Failure(Outcome.TRANSIENT, f"{file.key} changed at the source while it was read: another run gets the new one")
    if kind == "no_access":
        return Failure(Outcome.NO_ACCESS, f"{file.key} is listed, but may not be read ({code}): allow s3:GetObject for these keys")
    return Retryable(f"{code} while reading {file.key}")


@asynccontextmanager
async def _connect(store: Store, limits: Limits) -> AsyncIterator[S3Client]:
    config = AioConfig(
        s3={"addressing_style": "path"} if store.endpoint_url else {},
        retries={"total_max_attempts": 1},
        connect_timeout=30,
        read_timeout=limits.stall_s,
        max_pool_connections=limits.ranges_in_flight + limits.files_in_flight,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = aioboto3.Session(
        aws_access_key_id=store.access_key_id or None,
        aws_secret_access_key=store.secret_access_key or None,
        region_name=store.region or ("us-east-1" if store.endpoint_url else None),
    )
    async with session.client("s3", endpoint_url=store.endpoint_url or None, config=config) as client:
        yield client


async def _ask(limits: Limits, client: S3Client, uri: S3Uri) -> tuple[SourceFile, ...]:
    """What the prefix lists, sorted by path. Raises Failure."""

    async def attempt() -> tuple[SourceFile, ...]:
        try:
            folder = await _list_folder(client, uri.bucket, f"{uri.prefix}/" if uri.prefix else "")
            return folder or (await _list_key(client, uri.bucket, uri.prefix) if uri.prefix else ())
        except (BotoCoreError, ClientError, aiohttp.ClientError, ConnectionError) as error:
            kind = kind_of(error)
            if kind == "transient":
                raise Retryable(_code(error)) from error
            raise Failure(Outcome.NO_ACCESS if kind == "no_access" else Outcome.NOT_FOUND, _code(error)) from error

    return await with_tries(limits, attempt)


async def _list_folder(client: S3Client, bucket: str, folder: str) -> tuple[SourceFile, ...]:
    files = []
    async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
        for item in page.get("Contents", []):
            path = item["Key"].removeprefix(folder)
            if path and not path.endswith("/") and not is_own(path):
                files.append(SourceFile(path, item["Size"], item["ETag"].strip('"'), item["Key"]))
    return tuple(sorted(files, key=lambda file: file.path))


async def _list_key(client: S3Client, bucket: str, key: str) -> tuple[SourceFile, ...]:
    """The key itself: it sorts before everything it is a prefix of."""
    page = await client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    return tuple(
        SourceFile(key.rpartition("/")[2], item["Size"], item["ETag"].strip('"'), key) for item in page.get("Contents", []) if item["Key"] == key
    )


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown error")) if isinstance(error, ClientError) else type(error).__name__


def _kind(error: Failure) -> Kind:
    match error.outcome:
        case Outcome.NO_ACCESS:
            return "no_access"
        case Outcome.NOT_FOUND:
            return "not_there"
        case _:
            return "transient"


def _hex(value: str, size_bytes: int) -> str:
    """Hex of a base64 digest of that size; empty for anything else."""
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return digest.hex() if len(digest) == size_bytes else ""
