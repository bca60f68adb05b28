"""S3-compatible stores as a source: `s3://bucket/prefix`.

The stores are tried in order; the first in which the prefix lists anything is used. Any failure of
one store leads to the next. A prefix means the keys under it as a folder, or the key itself.
Reads are conditional on the listed ETag if it is a strong one. An object that is rewritten during
the run is noticed, not mixed. Everything else that a store may omit is optional: HEAD, multipart
HEAD, conditions, ranges."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from aim_downloader.clean import clean
from aim_downloader.exit_codes import Failure, Outcome, RangesIgnored, Retryable
from aim_downloader.paths import is_own, without_placeholders
from aim_downloader.plain import Headers, PlainReader, PlainRequest
from aim_downloader.ranges import Answered, fault_of
from aim_downloader.retry import Limits, retry
from aim_downloader.s3_client import Connection, connect
from aim_downloader.s3_errors import StoreError, store_error_of
from aim_downloader.s3_listing import IncompleteListing, Item, Page, PageStart, list_objects
from aim_downloader.source import Body, ExpectedChecksums, Listing, SourceFile
from aim_downloader.store_errors import Answer, Kind, failure_from_answers
from aim_downloader.stores import Store, stores_from
from aim_downloader.trust import tls_context
from aim_downloader.uri import S3Uri

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")
_MULTIPART = re.compile(r"[0-9a-f]{32}-(\d+)")
_MD5_ETAG_ENCRYPTION = {None, "", "AES256"}
"""Encryptions under which an ETag is the content's MD5 (S3 API reference, Object)."""
_NO_MD5_ETAG_CLASSES = {"EXPRESS_ONEZONE"}
"""Storage classes whose ETags are random (S3 user guide, directory buckets)."""
_WEAK, _MODIFIED = "W/", "modified "
"""Prefixes of tags that cannot be a condition: weak ETags, and the time that replaces a missing
one."""
_WITH_CHECKSUMS = {"x-amz-checksum-mode": "ENABLED"}
_HEADERS = {
    "ETag": "etag",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
    "StorageClass": "x-amz-storage-class",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ChecksumCRC32": "x-amz-checksum-crc32",
    "ChecksumType": "x-amz-checksum-type",
}
"""The elements of a HeadObject response that `checksums_of` reads, and their headers."""
_OUTCOME: dict[Kind, Outcome] = {
    "no_access": Outcome.NO_ACCESS,
    "not_there": Outcome.NOT_FOUND,
    "transient": Outcome.TRANSIENT,
}
_KIND: dict[Outcome, Kind] = {outcome: kind for kind, outcome in _OUTCOME.items()}


@asynccontextmanager
async def open_s3(uri: S3Uri, env: Mapping[str, str], limits: Limits) -> AsyncIterator[S3Source]:
    """The source for the duration of a run."""
    async with AsyncExitStack() as stack:
        source = S3Source(uri, stores_from(env), stack, limits, tls_context(env))
        stack.callback(source.reader.close)
        yield source


class S3Source:
    """Implements `Source`. Call `listing` first: it selects the store."""

    def __init__(
        self,
        uri: S3Uri,
        stores: Iterable[Store],
        stack: AsyncExitStack,
        limits: Limits,
        tls: ssl.SSLContext,
    ) -> None:
        self._uri = uri
        self._stores = stores
        self._stack = stack
        self._limits = limits
        self._tls = tls
        self._store = Store()
        self._connection: Connection | None = None
        self.reader = PlainReader(tls, limits.stall_s)
        self._etags: dict[str, str] = {}
        self._modified: dict[str, datetime] = {}
        self._takes_conditions = True
        self._meets_conditions = False

    async def listing(self) -> Listing:
        answers = []
        for store in self._stores:
            try:
                files = await self._files(store)
            except Failure as error:
                answers.append(
                    Answer(store.label, _KIND.get(error.outcome, "transient"), error.message)
                )
            except Exception as error:  # any error: the next store may work
                answers.append(Answer(store.label, "transient", store_error_of(error, store).text))
            else:
                if files:
                    return Listing(revision_of(files), files)
                answers.append(Answer(store.label, "empty", ""))
        raise failure_from_answers(f"s3://{self._uri.bucket}/{self._uri.prefix}", answers)

    async def expected_checksums(self, file: SourceFile) -> ExpectedChecksums:
        """Empty if the store does not answer the HEAD. That check is then skipped; a read reports
        the fault."""
        try:
            head = await self._head(file)
        except ClientError as error:
            store_error = store_error_of(error, self._store)
            if store_error.retryable:
                raise Retryable(
                    store_error.text, retry_after_s=store_error.retry_after_s
                ) from error
            return ExpectedChecksums()
        except Failure:  # a malformed response, or a redirect
            return ExpectedChecksums()
        self._note_version(file, head)
        expected = checksums_of(head)
        if match := _MULTIPART.fullmatch(expected.multipart_md5):
            return await self._with_part_size(file, expected, int(match[1]))
        return expected

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Body]:
        async with self._open(file, (start, end)) as body:
            yield body

    async def plain_request(
        self, file: SourceFile, requested: tuple[int, int]
    ) -> PlainRequest | None:
        signer = self._connection.signer if self._connection else None
        if signer is None:
            return None
        start, end = requested
        version = self._version(file)
        conditions = {"If-Match": version} if version and self._takes_conditions else {}
        is_whole = end - start == file.size_bytes
        extent = _WITH_CHECKSUMS if is_whole else {"Range": f"bytes={start}-{end - 1}"}
        url = signer.url(file.key)
        headers = await signer.headers(url, conditions | extent)

        def is_right(answer: Headers) -> bool:
            return not version or _bare(answer.get("etag", "")) == _bare(version)

        return PlainRequest(url, headers, start, end, file.size_bytes, is_right)

    def is_checked_by_answer(self, file: SourceFile) -> bool:
        """The digest of an object in parts needs a HEAD of its parts."""
        return not _MULTIPART.fullmatch(file.tag)

    def checksums_of_answer(
        self,
        file: SourceFile,  # noqa: ARG002 - of the port
        headers: Headers,
    ) -> ExpectedChecksums:
        return checksums_of({name: headers.get(header) for name, header in _HEADERS.items()})

    @asynccontextmanager
    async def open_whole(self, file: SourceFile) -> AsyncIterator[Body]:
        async with self._open(file, None) as body:
            yield body

    async def _files(self, store: Store) -> tuple[SourceFile, ...]:
        """The files of the store, sorted by path. Later reads use this store."""
        self._store = store
        self._connection = await self._stack.enter_async_context(
            connect(store, self._limits, self._tls)
        )
        prefix = self._uri.prefix
        items = await self._objects(f"{prefix}/" if prefix else "")
        files = [await self._file(item, item["Key"].removeprefix(f"{prefix}/")) for item in items]
        files = without_placeholders(file for file in files if not is_own(file.path))
        if not files and prefix:
            own = [item for item in await self._objects(prefix, one=True) if item["Key"] == prefix]
            files = [await self._file(item, prefix.rpartition("/")[2]) for item in own]
        return tuple(sorted(files, key=lambda file: file.path))

    async def _objects(self, prefix: str, *, one: bool = False) -> list[Item]:
        """The objects whose keys begin with the prefix. With `one` only the first: the prefix
        itself if it is a key."""

        async def fetch_page(start: PageStart) -> Page:
            page = await retry(self._limits, lambda: self._page(start, prefix, one=one))
            return {"Contents": (page.get("Contents") or [])[:1]} if one else page

        try:
            return await list_objects(fetch_page, prefix)
        except ListV2Unsupported as error:
            with suppress(Failure):
                return await list_objects(fetch_page, prefix, PageStart("marker"))
            raise error from error.__cause__
        except IncompleteListing as error:
            message = (
                f"{error}: what it lists cannot be taken for the whole; report it to the"
                " operator of the store"
            )
            raise Failure(Outcome.TRANSIENT, message) from error

    async def _page(self, start: PageStart, prefix: str, *, one: bool) -> Page:
        client = self._connect_once()
        params: dict[str, Any] = {**start.params, "Bucket": self._uri.bucket, "Prefix": prefix}
        if one:
            params["MaxKeys"] = 1
        try:
            return await (client.list_objects if start.by == "marker" else client.list_objects_v2)(
                **params
            )
        except (
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # from botocore, if a required field is missing
            message = (
                f"answers with a listing that cannot be read ({type(error).__name__}:"
                f" {clean(str(error))})"
            )
            raise Failure(Outcome.TRANSIENT, message) from error
        except Exception as error:
            store_error = store_error_of(error, self._store)
            if store_error.retryable:
                raise Retryable(
                    store_error.text, retry_after_s=store_error.retry_after_s
                ) from error
            failed = (
                ListV2Unsupported
                if store_error.is_unsupported_request and start == PageStart()
                else Failure
            )
            raise failed(_OUTCOME[store_error.kind], store_error.text) from error

    async def _file(self, item: Item, path: str) -> SourceFile:
        """The file of a listed object; without a listed size, a HEAD gets it."""
        key, size_bytes = item["Key"], item.get("Size")
        if modified := item.get("LastModified"):
            self._modified[key] = modified
        tag = _tag(item.get("ETag"), item.get("LastModified"))
        if size_bytes is None or size_bytes < 0:
            head = await retry(self._limits, lambda: self._size_of(key))
            size_bytes = head["ContentLength"]
            tag = tag or _tag(head.get("ETag"), head.get("LastModified"))
        return SourceFile(path, size_bytes, tag, key)

    async def _size_of(self, key: str) -> Mapping[str, Any]:
        try:
            head = await self._connect_once().head_object(Bucket=self._uri.bucket, Key=key)
        except Exception as error:
            store_error = store_error_of(error, self._store)
            if store_error.retryable:
                raise Retryable(
                    store_error.text, retry_after_s=store_error.retry_after_s
                ) from error
            message = f"lists {key} without its size, and does not give it: {store_error.text}"
            raise Failure(Outcome.TRANSIENT, message) from error
        if head.get("ContentLength") is None:
            raise Failure(Outcome.TRANSIENT, f"lists {key} without its size, and does not give it")
        return head

    @asynccontextmanager
    async def _open(
        self, file: SourceFile, requested: tuple[int, int] | None
    ) -> AsyncIterator[Body]:
        """The requested bytes. None requests the whole file without a range."""
        options: dict[str, Any] = (
            {"Range": f"bytes={requested[0]}-{requested[1] - 1}"} if requested else {}
        )
        if self._takes_conditions and (version := self._version(file)):
            options["IfMatch"] = version
        try:
            answer = await self._connect_once().get_object(
                Bucket=self._uri.bucket, Key=file.key, **options
            )
        except Exception as error:
            raise self._read_error(error, file, options) from error
        try:
            body = answer["Body"]
            async with body:
                self._check(file, answer, requested)
                self._meets_conditions |= "IfMatch" in options
                yield body
        except (
            BotoCoreError,
            aiohttp.ClientError,
            ConnectionError,
        ) as error:  # no other: errors of the disk pass through
            raise self._read_error(error, file, options) from error

    def _check(
        self, file: SourceFile, answer: Mapping[str, Any], requested: tuple[int, int] | None
    ) -> None:
        """Raises if the response is not the requested content."""
        answered = Answered(
            int(answer["ResponseMetadata"]["HTTPStatusCode"]),
            str(answer.get("ContentRange") or ""),
            answer.get("ContentLength"),
        )
        if requested and answered.status == 200 and requested != (0, file.size_bytes):
            raise RangesIgnored
        if fault := fault_of(answered, requested or (0, file.size_bytes), file.size_bytes):
            encoding = answer.get("ContentEncoding")
            raise Retryable(
                f"{self._store.label} {fault}"
                + (f" ({clean(encoding)}: something on the way compresses)" if encoding else "")
            )
        version, etag = self._version(file), str(answer.get("ETag") or "")
        if version and _is_strong(etag) and _bare(etag) != _bare(version):
            raise _changed_failure(file)

    def _read_error(
        self, error: Exception, file: SourceFile, options: Mapping[str, Any]
    ) -> Exception:
        """The exception for a failed read of a listed object."""
        store_error = store_error_of(error, self._store)
        conditional = "IfMatch" in options
        text = f"{store_error.text} while reading {file.key}"
        # A HEAD has just found this version, so perhaps the store rejects every condition. The ETag
        # of the response still shows a change.
        found_by_head = file.key in self._etags and not self._meets_conditions
        if conditional and store_error.status == 412 and found_by_head:
            self._takes_conditions = False
            return Retryable(text)
        if (
            store_error.status == 412
            or store_error.code == "PreconditionFailed"
            or store_error.kind == "not_there"
        ):
            if store_error.status in {404, 412}:
                return _changed_failure(file)
            return _unreadable(Outcome.TRANSIENT, file, store_error)
        if store_error.kind == "no_access":
            return _unreadable(Outcome.NO_ACCESS, file, store_error)
        if store_error.retryable:
            return Retryable(text, retry_after_s=store_error.retry_after_s)
        if store_error.is_unsupported_request:
            if conditional and (store_error.status == 501 or "Range" not in options):
                self._takes_conditions = False
                return Retryable(text)
            if "Range" in options:
                return RangesIgnored()
        return _unreadable(Outcome.TRANSIENT, file, store_error)

    def _version(self, file: SourceFile) -> str:
        """The ETag of this version as a header value; empty if it cannot be a condition."""
        if not file.tag or file.tag.startswith((_WEAK, _MODIFIED)):
            return ""
        return self._etags.get(file.key) or f'"{file.tag}"'

    def _note_version(self, file: SourceFile, head: Mapping[str, Any]) -> None:
        """Record the ETag of the HEAD for reads. A store may write ETags differently in listings;
        then LastModified shows that the version is the listed one."""
        etag, size_bytes = str(head.get("ETag") or ""), head.get("ContentLength")
        if (
            size_bytes is not None
            and size_bytes != file.size_bytes
            and not head.get("ContentEncoding")
        ):
            raise _changed_failure(file)
        if not _is_strong(etag) or not self._version(file):
            return
        listed, found = self._modified.get(file.key), head.get("LastModified")
        is_same_time = (
            listed and found and listed.replace(microsecond=0) == found.replace(microsecond=0)
        )
        if _bare(etag) != file.tag and not is_same_time:
            raise _changed_failure(file)
        self._etags[file.key] = etag

    async def _with_part_size(
        self, file: SourceFile, expected: ExpectedChecksums, parts: int
    ) -> ExpectedChecksums:
        """Add the part size. The multipart digest can be computed if all parts but the last have
        one size. HEADs of the first and last part show it, if the store supports them."""
        unchecked = ExpectedChecksums(sha256=expected.sha256, crc32=expected.crc32)
        try:
            first = await self._head(file, PartNumber=1)
            last = await self._head(file, PartNumber=parts)
        except (ClientError, Retryable, Failure):
            return unchecked
        part_bytes, last_bytes = first.get("ContentLength") or 0, last.get("ContentLength") or 0
        uniform = (
            first.get("PartsCount") == parts
            and part_bytes * (parts - 1) + last_bytes == file.size_bytes
        )
        if uniform and part_bytes > 0:
            return ExpectedChecksums(
                sha256=expected.sha256,
                crc32=expected.crc32,
                multipart_md5=expected.multipart_md5,
                part_bytes=part_bytes,
            )
        return unchecked

    async def _head(self, file: SourceFile, **more: Any) -> Mapping[str, Any]:
        """Raises ClientError for whatever the store answers, and Retryable or Failure where it
        does not answer."""
        try:
            return await self._connect_once().head_object(
                Bucket=self._uri.bucket, Key=file.key, ChecksumMode="ENABLED", **more
            )
        except ClientError:
            raise
        except Exception as error:
            raise self._read_error(error, file, {}) from error

    def _connect_once(self) -> S3Client:
        assert self._connection, "listing comes first"
        return self._connection.client


class ListV2Unsupported(Failure):
    """The store may only support the first version of ListObjects."""


def checksums_of(head: Mapping[str, Any]) -> ExpectedChecksums:
    """The checksums in a HeadObject response. Without checksums of parts (`COMPOSITE`) and those
    that the standard library cannot compute.

    Some stores write a plain MD5 in capitals. Their multipart digests in capitals are ignored: they
    are not computed as Amazon does.
    """
    etag = str(head.get("ETag") or "")
    etag = _bare(etag) if _is_strong(etag) else ""
    encryption = head.get("ServerSideEncryption")
    is_md5 = (
        encryption in _MD5_ETAG_ENCRYPTION
        and not head.get("SSECustomerAlgorithm")
        and head.get("StorageClass") not in _NO_MD5_ETAG_CLASSES
    )
    whole = (head.get("ChecksumType") or "FULL_OBJECT") == "FULL_OBJECT"
    return ExpectedChecksums(
        sha256=_hex(head.get("ChecksumSHA256") or "", 32) if whole else "",
        crc32=_hex(head.get("ChecksumCRC32") or "", 4) if whole else "",
        md5=etag.lower() if is_md5 and _PLAIN_MD5.fullmatch(etag.lower()) else "",
        multipart_md5=etag if is_md5 and _MULTIPART.fullmatch(etag) else "",
    )


def revision_of(files: Iterable[SourceFile]) -> str:
    """The revision of exactly this set of objects: a hash of key, ETag and size of each."""
    lines = sorted(f"{file.key}\0{file.tag}\0{file.size_bytes}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _tag(etag: object, modified: object) -> str:
    """The ETag without quotes; a weak one unchanged. Without an ETag, the time of the last
    change."""
    if etag:
        return _bare(str(etag)) if _is_strong(str(etag)) else str(etag)
    return f"{_MODIFIED}{modified.isoformat()}" if isinstance(modified, datetime) else ""


def _is_strong(etag: str) -> bool:
    return bool(etag) and not etag.startswith(_WEAK)


def _bare(etag: str) -> str:
    return etag.strip().strip('"')


def _changed_failure(file: SourceFile) -> Failure:
    return Failure(
        Outcome.TRANSIENT,
        f"{file.key} changed at the source while it was read: the next run fetches the new version",
    )


def _unreadable(outcome: Outcome, file: SourceFile, store_error: StoreError) -> Failure:
    return Failure(outcome, f"{file.key} is listed, but may not be read ({store_error.text})")


def _hex(value: str, size_bytes: int) -> str:
    """Hex of a base64 digest of that size; empty for anything else."""
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return digest.hex() if len(digest) == size_bytes else ""
