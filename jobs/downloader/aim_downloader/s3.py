"""S3 and what speaks its protocol as a source: `s3://bucket/prefix`.

The stores are asked in order and the first in which the prefix lists anything is used; whatever one
of them does, the next is asked. A prefix means what is under it as a folder, or the key itself.
Reads are conditional on the listed ETag where there is a strong one, so that an object that is
written anew under way is noticed, not mixed. Everything else that a store may leave out is done
without: a HEAD, a multipart HEAD, conditions, ranges.
"""

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
from aim_downloader.ranges import Answered, fault_of
from aim_downloader.retry import Limits, with_tries
from aim_downloader.s3_client import connect
from aim_downloader.s3_errors import Trouble, trouble_of
from aim_downloader.s3_listing import Incomplete, Item, Page, Way, list_objects
from aim_downloader.source import Body, Listing, Says, SourceFile
from aim_downloader.store_errors import Answer, Kind, verdict
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
"""How tags begin that cannot be a condition: weak ETags, and the time that stands in for a
missing one."""
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
        yield S3Source(uri, stores_from(env), stack, limits, tls_context(env))


class S3Source:
    """A `Source`; see there. `listing` comes first, since it finds the store."""

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
        self._client: S3Client | None = None
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
            except Exception as error:  # whatever it is, the next store may be well
                answers.append(Answer(store.label, "transient", trouble_of(error, store).text))
            else:
                if files:
                    return Listing(revision_of(files), files)
                answers.append(Answer(store.label, "empty", ""))
        raise verdict(f"s3://{self._uri.bucket}/{self._uri.prefix}", answers)

    async def says(self, file: SourceFile) -> Says:
        """Empty where the store does not answer the question: that check is then left out, and
        reading tells what is wrong."""
        try:
            head = await self._head(file)
        except ClientError as error:
            trouble = trouble_of(error, self._store)
            if trouble.retryable:
                raise Retryable(trouble.text, retry_after_s=trouble.retry_after_s) from error
            return Says()
        except Failure:  # no answer that can be read, a redirect
            return Says()
        self._note_version(file, head)
        says = says_of(head)
        if match := _MULTIPART.fullmatch(says.multipart_md5):
            return await self._with_part_size(file, says, int(match[1]))
        return says

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Body]:
        async with self._opened(file, (start, end)) as body:
            yield body

    @asynccontextmanager
    async def open_whole(self, file: SourceFile) -> AsyncIterator[Body]:
        async with self._opened(file, None) as body:
            yield body

    async def _files(self, store: Store) -> tuple[SourceFile, ...]:
        """What the store lists, sorted by path; it is the one that is read from then on."""
        self._store = store
        self._client = await self._stack.enter_async_context(
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
        """What begins with the prefix; with `one` the first key only, which is the prefix itself
        if there is such a key."""

        async def ask(way: Way) -> Page:
            page = await with_tries(self._limits, lambda: self._page(way, prefix, one=one))
            return {"Contents": (page.get("Contents") or [])[:1]} if one else page

        try:
            return await list_objects(ask, prefix)
        except _NoListV2 as error:
            with suppress(Failure):
                return await list_objects(ask, prefix, Way("marker"))
            raise error from error.__cause__
        except Incomplete as error:
            message = (
                f"{error}: what it lists cannot be taken for the whole; report it to who runs the"
                " store"
            )
            raise Failure(Outcome.TRANSIENT, message) from error

    async def _page(self, way: Way, prefix: str, *, one: bool) -> Page:
        client = self._connected()
        asked: dict[str, Any] = {**way.params, "Bucket": self._uri.bucket, "Prefix": prefix}
        if one:
            asked["MaxKeys"] = 1
        try:
            return await (client.list_objects if way.by == "marker" else client.list_objects_v2)(
                **asked
            )
        except (
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # in botocore, over an answer with less in it than it counts on
            message = (
                f"answers with a listing that cannot be read ({type(error).__name__}:"
                f" {clean(str(error))})"
            )
            raise Failure(Outcome.TRANSIENT, message) from error
        except Exception as error:
            trouble = trouble_of(error, self._store)
            if trouble.retryable:
                raise Retryable(trouble.text, retry_after_s=trouble.retry_after_s) from error
            failed = _NoListV2 if trouble.is_of_the_way and way == Way() else Failure
            raise failed(_OUTCOME[trouble.kind], trouble.text) from error

    async def _file(self, item: Item, path: str) -> SourceFile:
        """Of a listed object; its size is asked for where the listing leaves it out."""
        key, size_bytes = item["Key"], item.get("Size")
        if modified := item.get("LastModified"):
            self._modified[key] = modified
        tag = _tag(item.get("ETag"), item.get("LastModified"))
        if size_bytes is None or size_bytes < 0:
            head = await with_tries(self._limits, lambda: self._size_of(key))
            size_bytes, tag = (
                head["ContentLength"],
                tag or _tag(head.get("ETag"), head.get("LastModified")),
            )
        return SourceFile(path, size_bytes, tag, key)

    async def _size_of(self, key: str) -> Mapping[str, Any]:
        try:
            head = await self._connected().head_object(Bucket=self._uri.bucket, Key=key)
        except Exception as error:
            trouble = trouble_of(error, self._store)
            if trouble.retryable:
                raise Retryable(trouble.text, retry_after_s=trouble.retry_after_s) from error
            message = f"lists {key} without its size, and does not give it: {trouble.text}"
            raise Failure(Outcome.TRANSIENT, message) from error
        if head.get("ContentLength") is None:
            raise Failure(Outcome.TRANSIENT, f"lists {key} without its size, and does not give it")
        return head

    @asynccontextmanager
    async def _opened(self, file: SourceFile, asked: tuple[int, int] | None) -> AsyncIterator[Body]:
        """The bytes asked for, None for all of them in one answer to a request without a range."""
        wanted: dict[str, Any] = {"Range": f"bytes={asked[0]}-{asked[1] - 1}"} if asked else {}
        if self._takes_conditions and (version := self._version(file)):
            wanted["IfMatch"] = version
        try:
            answer = await self._connected().get_object(
                Bucket=self._uri.bucket, Key=file.key, **wanted
            )
        except Exception as error:
            raise self._not_read(error, file, wanted) from error
        try:
            body = answer["Body"]
            async with body:
                self._check(file, answer, asked)
                self._meets_conditions |= "IfMatch" in wanted
                yield body
        except (
            BotoCoreError,
            aiohttp.ClientError,
            ConnectionError,
        ) as error:  # no other: what the disk raises passes
            raise self._not_read(error, file, wanted) from error

    def _check(
        self, file: SourceFile, answer: Mapping[str, Any], asked: tuple[int, int] | None
    ) -> None:
        """Raises where the answer is not what was asked for."""
        answered = Answered(
            int(answer["ResponseMetadata"]["HTTPStatusCode"]),
            str(answer.get("ContentRange") or ""),
            answer.get("ContentLength"),
        )
        if asked and answered.status == 200 and asked != (0, file.size_bytes):
            raise RangesIgnored
        if fault := fault_of(answered, asked or (0, file.size_bytes), file.size_bytes):
            encoding = answer.get("ContentEncoding")
            raise Retryable(
                f"{self._store.label} {fault}"
                + (f" ({clean(encoding)}: something on the way compresses)" if encoding else "")
            )
        version, etag = self._version(file), str(answer.get("ETag") or "")
        if version and _is_strong(etag) and _bare(etag) != _bare(version):
            raise _changed(file)

    def _not_read(self, error: Exception, file: SourceFile, wanted: Mapping[str, Any]) -> Exception:
        """What it means that a listed object is not read."""
        trouble = trouble_of(error, self._store)
        conditional = "IfMatch" in wanted
        # A HEAD has just found this version: then perhaps no version meets a condition. The ETag of
        # the answer tells all the same.
        if (
            conditional
            and trouble.status == 412
            and file.key in self._etags
            and not self._meets_conditions
        ):
            self._takes_conditions = False
            return Retryable(f"{trouble.text} while reading {file.key}")
        if (
            trouble.status == 412
            or trouble.code == "PreconditionFailed"
            or trouble.kind == "not_there"
        ):
            return (
                _changed(file)
                if trouble.status in {404, 412}
                else _unreadable(Outcome.TRANSIENT, file, trouble)
            )
        if trouble.kind == "no_access":
            return _unreadable(Outcome.NO_ACCESS, file, trouble)
        if trouble.retryable:
            return Retryable(
                f"{trouble.text} while reading {file.key}", retry_after_s=trouble.retry_after_s
            )
        if (
            trouble.is_of_the_way
            and conditional
            and (trouble.status == 501 or "Range" not in wanted)
        ):
            self._takes_conditions = False
            return Retryable(f"{trouble.text} while reading {file.key}")
        if trouble.is_of_the_way and "Range" in wanted:
            return RangesIgnored()
        return _unreadable(Outcome.TRANSIENT, file, trouble)

    def _version(self, file: SourceFile) -> str:
        """The ETag of this version, as a header; empty where there is none that can be a
        condition."""
        if not file.tag or file.tag.startswith((_WEAK, _MODIFIED)):
            return ""
        return self._etags.get(file.key) or f'"{file.tag}"'

    def _note_version(self, file: SourceFile, head: Mapping[str, Any]) -> None:
        """A store may write ETags otherwise in answers than in listings: then the time tells
        that it is the version that was listed."""
        etag, size_bytes = str(head.get("ETag") or ""), head.get("ContentLength")
        if (
            size_bytes is not None
            and size_bytes != file.size_bytes
            and not head.get("ContentEncoding")
        ):
            raise _changed(file)
        if not _is_strong(etag) or not self._version(file):
            return
        listed, found = self._modified.get(file.key), head.get("LastModified")
        is_same_time = (
            listed and found and listed.replace(microsecond=0) == found.replace(microsecond=0)
        )
        if _bare(etag) != file.tag and not is_same_time:
            raise _changed(file)
        self._etags[file.key] = etag

    async def _with_part_size(self, file: SourceFile, says: Says, parts: int) -> Says:
        """The multipart digest can be computed if all parts but the last are of one size: the
        first and last tell, where a store tells of parts."""
        unchecked = Says(sha256=says.sha256, crc32=says.crc32)
        try:
            first, last = (
                await self._head(file, PartNumber=1),
                await self._head(file, PartNumber=parts),
            )
        except (ClientError, Retryable, Failure):
            return unchecked
        part_bytes, last_bytes = first.get("ContentLength") or 0, last.get("ContentLength") or 0
        uniform = (
            first.get("PartsCount") == parts
            and part_bytes * (parts - 1) + last_bytes == file.size_bytes
        )
        if uniform and part_bytes > 0:
            return Says(
                sha256=says.sha256,
                crc32=says.crc32,
                multipart_md5=says.multipart_md5,
                part_bytes=part_bytes,
            )
        return unchecked

    async def _head(self, file: SourceFile, **more: Any) -> Mapping[str, Any]:
        """Raises ClientError for whatever the store answers, and Retryable or Failure where it
        does not answer."""
        try:
            return await self._connected().head_object(
                Bucket=self._uri.bucket, Key=file.key, ChecksumMode="ENABLED", **more
            )
        except ClientError:
            raise
        except Exception as error:
            raise self._not_read(error, file, {}) from error

    def _connected(self) -> S3Client:
        assert self._client, "listing comes first"
        return self._client


class _NoListV2(Failure):
    """The store may only know the first version of ListObjects."""


def says_of(head: Mapping[str, Any]) -> Says:
    """What a HeadObject answer says of the content. Checksums of parts (`COMPOSITE`) and those no
    standard library computes are left out.

    Some stores write a plain MD5 in capitals; what they write so for parts is not computed as
    Amazon does.
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
    return Says(
        sha256=_hex(head.get("ChecksumSHA256") or "", 32) if whole else "",
        crc32=_hex(head.get("ChecksumCRC32") or "", 4) if whole else "",
        md5=etag.lower() if is_md5 and _PLAIN_MD5.fullmatch(etag.lower()) else "",
        multipart_md5=etag if is_md5 and _MULTIPART.fullmatch(etag) else "",
    )


def revision_of(files: Iterable[SourceFile]) -> str:
    """One name for exactly this set of objects: a hash over key, ETag and size of each."""
    lines = sorted(f"{file.key}\0{file.tag}\0{file.size_bytes}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _tag(etag: object, modified: object) -> str:
    """The ETag without its quotes, weak ones as they are; without any, the time of the last
    change."""
    if etag:
        return _bare(str(etag)) if _is_strong(str(etag)) else str(etag)
    return f"{_MODIFIED}{modified.isoformat()}" if isinstance(modified, datetime) else ""


def _is_strong(etag: str) -> bool:
    return bool(etag) and not etag.startswith(_WEAK)


def _bare(etag: str) -> str:
    return etag.strip().strip('"')


def _changed(file: SourceFile) -> Failure:
    return Failure(
        Outcome.TRANSIENT,
        f"{file.key} changed at the source while it was read: another run gets the new one",
    )


def _unreadable(outcome: Outcome, file: SourceFile, trouble: Trouble) -> Failure:
    return Failure(outcome, f"{file.key} is listed, but may not be read ({trouble.text})")


def _hex(value: str, size_bytes: int) -> str:
    """Hex of a base64 digest of that size; empty for anything else."""
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return digest.hex() if len(digest) == size_bytes else ""
