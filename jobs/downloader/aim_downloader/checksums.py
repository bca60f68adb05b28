"""Reading a file's bytes once, in order, and holding them against what the source says of them. No
I/O.

The sha256 is always computed, since the manifest records it; the other digests only where the
source gives one to compare with. Git blob ids hash `blob <size>\\0` and the content (git's object
format); a multipart ETag is the MD5 of the parts' MD5s and their number (Amazon S3 user guide,
"Checking object integrity").
"""

from __future__ import annotations

import hashlib
import zlib

from aim_downloader.source import Says


class Digests:
    """Digests of one file, fed in order from its first byte."""

    def __init__(self, size_bytes: int, says: Says) -> None:
        self._says = says
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if says.md5 else None
        self._git = (
            hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
            if says.git_sha1
            else None
        )
        self._crc32 = 0
        self._part = hashlib.md5(usedforsecurity=False)
        self._part_left = says.part_bytes
        self._parts: list[bytes] = []

    def update(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._sha256.update(data)
        if self._md5:
            self._md5.update(data)
        if self._git:
            self._git.update(data)
        if self._says.crc32:
            self._crc32 = zlib.crc32(data, self._crc32)
        if self._says.multipart_md5:
            self._update_parts(memoryview(data))

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def mismatches(self) -> list[str]:
        """The names of the digests in which the bytes taken so far are not what the source says;
        empty if they are."""
        ours = {
            "sha256": self.sha256,
            "git_sha1": self._git.hexdigest() if self._git else "",
            "md5": self._md5.hexdigest() if self._md5 else "",
            "crc32": f"{self._crc32:08x}",
            "multipart_md5": self._multipart(),
        }
        return [
            name
            for name, value in ours.items()
            if (said := getattr(self._says, name)) and said != value
        ]

    def _update_parts(self, data: memoryview) -> None:
        while data:
            taken, data = data[: self._part_left], data[self._part_left :]
            self._part.update(taken)
            self._part_left -= len(taken)
            if self._part_left == 0:
                self._parts.append(self._part.digest())
                self._part, self._part_left = (
                    hashlib.md5(usedforsecurity=False),
                    self._says.part_bytes,
                )

    def _multipart(self) -> str:
        begun = self._part_left < self._says.part_bytes
        parts = [*self._parts, self._part.digest()] if begun else self._parts
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
