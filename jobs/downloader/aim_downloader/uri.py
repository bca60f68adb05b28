"""Source URIs: `hf://owner/name[@revision]` and `s3://bucket/prefix`. Pure.

A URI is untrusted. Text without exactly one of the two forms is rejected with the name of the wrong
part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_HUB_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9._/-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")


HUB_SCHEME = "hf://"


class UriError(ValueError):
    """The text is no source URI; the message names the wrong part."""


@dataclass(frozen=True)
class HubUri:
    """A model repository; `revision` is a branch, tag or commit, and None is the repository's
    main branch."""

    owner: str
    name: str
    revision: str | None = None

    @property
    def repo(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class S3Uri:
    """A bucket and a key or folder in it, without a slash at the end. The empty prefix is the whole
    bucket."""

    bucket: str
    prefix: str


SourceUri = HubUri | S3Uri


def parse_uri(text: str) -> SourceUri:
    """Parse a source URI. Raises UriError."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in {"hf", "s3"}:
        raise UriError(f"source URI {text!r}: must begin with hf:// or s3://")
    if _CONTROL_OR_SPACE.search(rest):
        raise UriError(f"source URI {text!r}: has a space or control character")
    return _parse_hub(text, rest) if scheme == "hf" else _parse_s3(text, rest)


def _parse_hub(text: str, rest: str) -> HubUri:
    repo, at, revision = rest.partition("@")
    owner, slash, name = repo.partition("/")
    if not slash or not _HUB_NAME.fullmatch(owner) or not _HUB_NAME.fullmatch(name):
        raise UriError(
            f"source URI {text!r}: after hf:// must come owner/name, with an optional @revision"
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UriError(
            f"source URI {text!r}: {revision!r} is no revision (a branch, tag or commit)"
        )
    return HubUri(owner, name, revision or None)


def _parse_s3(text: str, rest: str) -> S3Uri:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UriError(f"source URI {text!r}: {bucket!r} is no bucket name")
    return S3Uri(bucket, prefix.rstrip("/"))


def has_serverless_mirror(env: Mapping[str, str]) -> bool:
    """Whether HF_ENDPOINT names a folder or a prefix in S3 instead of a server."""
    return env.get("HF_ENDPOINT", "").strip().startswith(("file://", "s3://"))
