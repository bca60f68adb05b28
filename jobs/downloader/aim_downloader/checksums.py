"""Digests of a file's bytes, read once and in order, compared with the expected checksums. No
I/O.

The sha256 is always computed, since the manifest records it. Other digests are computed only if the
source gives one to compare with. Git blob ids hash `blob <size>\\0` and the content (git's object
format); a multipart ETag is the MD5 of the parts' MD5s and their number (Amazon S3 user guide,
"Checking object integrity").
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable

from aim_downloader.source import ExpectedChecksums

Data = bytes | bytearray | memoryview


class Digests:
    """Digests of one file, fed in order from its first byte."""

    def __init__(
        self, size_bytes: int, expected: ExpectedChecksums, range_bytes: int | None = None
    ) -> None:
        """With `range_bytes`, ranges of that size may have hashers of their own."""
        self._expected = expected
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if expected.md5 else None
        self._git = (
            hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
            if expected.git_sha1
            else None
        )
        self._crc32 = 0
        self._parts: dict[int, bytes] = {}
        self._part_hasher = PartHasher(expected.part_bytes, 0, self._parts)
        self._is_by_range = bool(
            range_bytes and expected.part_bytes and range_bytes % expected.part_bytes == 0
        )

    def hasher_of_range(self, start: int) -> PartHasher | None:
        """The hasher of the parts in a range, if ranges consist of whole parts. Each range must be
        fed to one, in any order."""
        if not self._is_by_range:
            return None
        return PartHasher(self._expected.part_bytes, start, self._parts)

    def update(self, data: Data) -> None:
        """Add the next bytes of the file."""
        for update in self.lanes():
            update(data)

    def lanes(self) -> list[Callable[[Data], None]]:
        """Functions that each take all bytes of the file in order. Two threads may call two of
        them."""
        return [self._sha256.update] + ([self._update_others] if self._has_others else [])

    @property
    def _has_others(self) -> bool:
        expected = self._expected
        return bool(expected.md5 or expected.git_sha1 or expected.crc32 or self._is_parts_lane)

    @property
    def _is_parts_lane(self) -> bool:
        return bool(self._expected.multipart_md5) and not self._is_by_range

    def _update_others(self, data: Data) -> None:
        if self._md5:
            self._md5.update(data)
        if self._git:
            self._git.update(data)
        if self._expected.crc32:
            self._crc32 = zlib.crc32(data, self._crc32)
        if self._is_parts_lane:
            self._part_hasher.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def mismatches(self) -> list[str]:
        """The names of the digests that differ from the expected ones; empty if all match."""
        computed = {
            "sha256": self.sha256,
            "git_sha1": self._git.hexdigest() if self._git else "",
            "md5": self._md5.hexdigest() if self._md5 else "",
            "crc32": f"{self._crc32:08x}",
            "multipart_md5": self._multipart(),
        }
        return [
            name
            for name, value in computed.items()
            if (expected := getattr(self._expected, name)) and expected != value
        ]

    def _multipart(self) -> str:
        self._part_hasher.finish()
        digests = b"".join(self._parts[index] for index in sorted(self._parts))
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self._parts)}"


class PartHasher:
    """MD5 of each part of `part_bytes`, from a position at the start of a part. Writes them into
    `digests` by the number of the part."""

    def __init__(self, part_bytes: int, start: int, digests: dict[int, bytes]) -> None:
        self._part_bytes = part_bytes
        self._number = start // part_bytes if part_bytes else 0
        self._digests = digests
        self._restart()

    def update(self, data: Data) -> None:
        view = memoryview(data)
        while view:
            taken, view = view[: self._left_bytes], view[self._left_bytes :]
            self._md5.update(taken)
            self._left_bytes -= len(taken)
            if self._left_bytes == 0:
                self.finish()

    def finish(self) -> None:
        """The last part may be short."""
        if self._left_bytes < self._part_bytes:
            self._digests[self._number] = self._md5.digest()
            self._number += 1
            self._restart()

    def _restart(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._left_bytes = self._part_bytes
