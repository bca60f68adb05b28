"""A mirror of the hub without a server: a folder, or a prefix in S3. `HF_ENDPOINT` names it, as
`file:///path` or `s3://bucket/prefix`.

It has the layout of the hub's own cache, which `hf download --cache-dir` writes:

    models--OWNER--NAME/refs/REVISION           the commit of a branch or tag
    models--OWNER--NAME/snapshots/COMMIT/...    the files

In a folder, the files are links to `blobs/`, whose names are the checksums of the hub: these are
compared. A copy in S3 has the checksums of its store.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import msgspec

from aim_downloader.exit_codes import Failure, Outcome
from aim_downloader.paths import is_own
from aim_downloader.retry import Limits
from aim_downloader.s3 import S3Source
from aim_downloader.source import Body, ExpectedChecksums, Listing, SourceFile
from aim_downloader.stores import stores_from
from aim_downloader.trust import tls_context
from aim_downloader.uri import HubUri, S3Uri

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REF_BYTES_MAX = 4096
_MAIN = "main"


@asynccontextmanager
async def open_mirror(
    uri: HubUri, env: Mapping[str, str], limits: Limits
) -> AsyncIterator[FolderMirror | S3Mirror]:
    """The source for the duration of a run."""
    parts = urlsplit(env["HF_ENDPOINT"].strip())
    repo = f"models--{uri.owner}--{uri.name}"
    if parts.scheme == "file":
        yield FolderMirror(uri, Path(unquote(parts.path)) / repo)
        return
    prefix = "/".join(filter(None, (parts.path.strip("/"), repo)))
    async with AsyncExitStack() as stack:
        root = S3Uri(parts.netloc, prefix)
        source = S3Mirror(root, stores_from(env), stack, limits, tls_context(env))
        stack.callback(source.reader.close)
        source.hub_uri = uri
        yield source


class S3Mirror(S3Source):
    """Implements `Source` and `PlainSource`: reads the ref, then lists the snapshot."""

    hub_uri: HubUri

    async def listing(self) -> Listing:
        root = self._uri
        revision = self.hub_uri.revision or _MAIN
        commit = revision
        if not _COMMIT.fullmatch(revision):
            self._uri = S3Uri(root.bucket, f"{root.prefix}/refs/{revision}")
            [ref] = (await super().listing()).files
            async with self.open_whole(ref) as body:
                commit = _commit_in(
                    await body.read(_REF_BYTES_MAX), f"s3://{root.bucket}/{ref.key}"
                )
        self._uri = S3Uri(root.bucket, f"{root.prefix}/snapshots/{commit}")
        try:
            return msgspec.structs.replace(await super().listing(), revision=commit)
        finally:
            self._uri = root


@dataclass(frozen=True)
class FolderMirror:
    """Implements `Source`. `repo` is the folder of one model."""

    uri: HubUri
    repo: Path

    async def listing(self) -> Listing:
        return await asyncio.to_thread(self._list)

    async def expected_checksums(self, file: SourceFile) -> ExpectedChecksums:
        """The name of the file that a link leads to is the hub's ETag."""
        return _checksums_in((self.repo / file.key).resolve().name)

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Body]:  # noqa: ARG002 - the reader stops there
        content = await asyncio.to_thread((self.repo / file.key).open, "rb")
        try:
            content.seek(start)
            yield _FileBody(content)
        finally:
            content.close()

    @asynccontextmanager
    async def open_whole(self, file: SourceFile) -> AsyncIterator[Body]:
        async with self.open_range(file, 0, file.size_bytes) as body:
            yield body

    def _list(self) -> Listing:
        revision = self.uri.revision or _MAIN
        commit = revision
        try:
            if not _COMMIT.fullmatch(revision):
                ref = self.repo / "refs" / revision
                commit = _commit_in(ref.read_bytes()[:_REF_BYTES_MAX], str(ref))
            snapshot = self.repo / "snapshots" / commit
            files = [self._file(snapshot, path) for path in _paths_in(snapshot)]
        except (FileNotFoundError, NotADirectoryError) as error:
            message = (
                f"the mirror has no {self.uri.repo} at {revision}: {error.filename} is missing"
            )
            raise Failure(Outcome.NOT_FOUND, message) from error
        return Listing(
            commit,
            tuple(sorted((each for each in files if not is_own(each.path)), key=lambda f: f.path)),
        )

    def _file(self, snapshot: Path, path: str) -> SourceFile:
        """Raises Failure for a link that leads out of the model's folder."""
        target = (snapshot / path).resolve(strict=True)
        if not target.is_relative_to(self.repo.resolve()):
            message = f"rejected: {snapshot / path} leads to {target}, outside of {self.repo}"
            raise Failure(Outcome.NOT_FOUND, message)
        facts = target.stat()
        tag = target.name if _checksums_in(target.name) != ExpectedChecksums() else ""
        key = (snapshot / path).relative_to(self.repo).as_posix()
        return SourceFile(path, facts.st_size, tag or f"modified {facts.st_mtime_ns}", key)


@dataclass(frozen=True)
class _FileBody:
    content: BinaryIO

    async def read(self, size: int, /) -> bytes:
        return await asyncio.to_thread(self.content.read, size)


def _paths_in(snapshot: Path) -> list[str]:
    """Files below a folder. Links to folders are not followed."""
    if not snapshot.is_dir():
        raise FileNotFoundError(2, os.strerror(2), str(snapshot))
    return [
        (Path(folder) / name).relative_to(snapshot).as_posix()
        for folder, _, names in os.walk(snapshot)
        for name in names
    ]


def _commit_in(content: bytes, place: str) -> str:
    commit = content.decode(errors="replace").strip()
    if not _COMMIT.fullmatch(commit):
        raise Failure(Outcome.NOT_FOUND, f"{place} holds no commit: copy the mirror again")
    return commit


def _checksums_in(name: str) -> ExpectedChecksums:
    if _SHA256.fullmatch(name):
        return ExpectedChecksums(sha256=name)
    return ExpectedChecksums(git_sha1=name) if _COMMIT.fullmatch(name) else ExpectedChecksums()
