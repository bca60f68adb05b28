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

from aim_downloader.source import ExpectedChecksums


class Digests:
    """Digests of one file, fed in order from its first byte."""

    def __init__(self, size_bytes: int, expected: ExpectedChecksums) -> None:
        self._expected = expected
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if expected.md5 else None
        self._git = (
            hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
            if expected.git_sha1
            else None
        )
        self._crc32 = 0
        self._part = hashlib.md5(usedforsecurity=False)
        self._part_left = expected.part_bytes
        self._parts: list[bytes] = []

    def update(self, data: bytes) -> None:
        """Add the next bytes of the file."""
        self._sha256.update(data)
        if self._md5:
            self._md5.update(data)
        if self._git:
            self._git.update(data)
        if self._expected.crc32:
            self._crc32 = zlib.crc32(data, self._crc32)
        if self._expected.multipart_md5:
            self._update_parts(memoryview(data))

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

    def _update_parts(self, data: memoryview) -> None:
        while data:
            taken, data = data[: self._part_left], data[self._part_left :]
            self._part.update(taken)
            self._part_left -= len(taken)
            if self._part_left == 0:
                self._parts.append(self._part.digest())
                self._part = hashlib.md5(usedforsecurity=False)
                self._part_left = self._expected.part_bytes

    def _multipart(self) -> str:
        begun = self._part_left < self._expected.part_bytes
        parts = [*self._parts, self._part.digest()] if begun else self._parts
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
