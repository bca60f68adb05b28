"""What a source is to the rest of the program: a listing, what it says about a file's content, and
bytes of a range.

`hub` and `s3` are the two implementations. Anything about HTTP statuses, headers or client
libraries ends there: a source raises only `Failure` (ends the run), `Retryable` (this request may
be sent again) and `RangesIgnored` (ask for the whole file).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

OWN_NAMES = frozenset({".aim-manifest.json", ".aim-part"})
"""Names at the top of DEST that are ours; a source that has them (a copied cache) does not
overwrite them."""


class Says(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a source says of a file's content. Hex digests; empty where it says nothing.

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

    `remark` is for the user, where the source says less of it than others do.
    """

    revision: str
    files: tuple[SourceFile, ...]
    remark: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class Body(Protocol):
    """The bytes of an answer."""

    async def read(self, size: int, /) -> bytes:
        """At most `size` bytes, at least one unless the answer has ended."""
        ...


class Source(Protocol):
    """One model at one place. Every method may raise Failure or Retryable and may be called
    again after either."""

    async def listing(self) -> Listing:
        """Ask the source, always anew, for its current revision."""
        ...

    async def says(self, file: SourceFile) -> Says:
        """What the source says of a listed file's content."""
        ...

    def open_range(
        self, file: SourceFile, start: int, end: int
    ) -> AbstractAsyncContextManager[Body]:
        """Bytes `start` to `end` (exclusive) of exactly the listed version of the file. Raises
        RangesIgnored where only all of it can be had."""
        ...

    def open_whole(self, file: SourceFile) -> AbstractAsyncContextManager[Body]:
        """All bytes of it, asked for without a range."""
        ...
