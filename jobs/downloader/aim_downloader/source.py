"""The port to a model source: a listing, the expected checksums of a file, and bytes of a range.

`hub` and `s3` implement it. Only they know HTTP statuses, headers and client libraries. A source
raises only `Failure` (ends the run), `Retryable` (this request may be repeated) and
`RangesIgnored` (request the whole file).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from msgspec import Struct

from aim_downloader.plain import Headers, PlainReader, PlainRequest

OWN_NAMES = frozenset({".aim-manifest.json", ".aim-part", ".aim-lock"})
"""Names at the top of DEST that the downloader uses. A source that has them (a copied cache) does
not overwrite them."""


class ExpectedChecksums(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The checksums that the source gives for a file. Hex digests; empty if it gives none.

    `multipart_md5` is S3's `<md5 of the parts' md5s>-<parts>`, and then `part_bytes` is the size of
    every part but the last.
    """

    sha256: str = ""
    git_sha1: str = ""
    md5: str = ""
    multipart_md5: str = ""
    part_bytes: int = 0
    crc32: str = ""


class SourceFile(Struct, frozen=True):
    """A file in the listing. `path` is relative to DEST, `key` is the source's own name for it.

    `tag` changes whenever the content does: the ETag, the LFS sha256, or the git blob id.
    """

    path: str
    size_bytes: int
    tag: str
    key: str


class Listing(Struct, frozen=True):
    """All files of one revision, sorted by path. `revision` identifies the content: a commit, or a
    hash over the objects.

    `remark` is for the user: it names what this source leaves out.
    """

    revision: str
    files: tuple[SourceFile, ...]
    remark: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class Body(Protocol):
    """The body of a response."""

    async def read(self, size: int, /) -> bytes:
        """At most `size` bytes, at least one unless the body has ended."""
        ...


class Source(Protocol):
    """One model at one source. Every method may raise Failure or Retryable. After Retryable or
    Failure a call may be repeated."""

    async def listing(self) -> Listing:
        """Request the current revision from the source; never cached."""
        ...

    async def expected_checksums(self, file: SourceFile) -> ExpectedChecksums:
        """The checksums that the source gives for a listed file."""
        ...

    def open_range(
        self, file: SourceFile, start: int, end: int
    ) -> AbstractAsyncContextManager[Body]:
        """Bytes `start` to `end` (exclusive) of exactly the listed version of the file. Raises
        RangesIgnored if the server only sends the whole file."""
        ...

    def open_whole(self, file: SourceFile) -> AbstractAsyncContextManager[Body]:
        """All bytes of the file, by a request without a range."""
        ...


@runtime_checkable
class PlainSource(Protocol):
    """A source whose files plain requests can read, as long as the server answers exactly."""

    reader: PlainReader

    async def plain_request(
        self, file: SourceFile, requested: tuple[int, int]
    ) -> PlainRequest | None:
        """The request for bytes (end exclusive) of exactly the listed version; None if plain
        requests do not fit here."""
        ...

    def is_checked_by_answer(self, file: SourceFile) -> bool:
        """Whether the headers of an answer with the whole file give its checksums."""
        ...

    def checksums_of_answer(self, file: SourceFile, headers: Headers) -> ExpectedChecksums:
        """The checksums that such an answer gives."""
        ...
