"""The lines on stdout and the termination message: the contract with every reader of the log.

Each line is one JSON object: `progress` about once a second, and one `result` last. Every message
goes through `redact` first, so that no credential and no signed URL gets into a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TextIO

import msgspec
from msgspec import UNSET, Struct, UnsetType

from aim_downloader.exit_codes import Outcome

TERMINATION_BYTES_MAX = 4096
"""The kubelet cuts termination messages there."""

_SECRET_NAMES = re.compile(
    r"HF_TOKEN|HUGGING_FACE_HUB_TOKEN|AIM_S3_\d+_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)"
)
_CREDENTIALS = re.compile(r"""(?ix)
    (?P<name> \b(?:proxy-)?authorization ["']?\s*[:=]\s*["']? )
        (?:(?:bearer|basic|token|aws\S*)\s+)? [^\s,;"'<>]+
    | (?P<field> \b(?:x-amz-)?(?:credential|signature|security-token) ["']?\s*[:=]\s*["']? )
        [^\s,;&"'<>]+
    | (?P<scheme> \bbearer\s+ ) [\w.~+/=-]{8,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{12,}\b | \bhf_[A-Za-z0-9]{16,} | \beyJ[\w-]+\.[\w-]+\.[\w-]+
    """)
"""Parts of a request that servers repeat when they reject it: headers, signatures, keys and tokens
by their form."""
_URL_SECRETS = re.compile(r"(?<=://)[^/\s@]+@|(?<=[^\s?])\?[^\s'\"]*[&=][^\s'\"]*")


class Progress(Struct, frozen=True, kw_only=True, tag_field="event", tag="progress"):
    """The progress of a run. `bytes` of `total` are on disk (downloading) or verified (verifying).
    `rate` is in bytes a second."""

    phase: Literal["downloading", "verifying"]
    bytes: int
    total: int
    rate: float
    seconds_left: float | None
    file: str
    files_done: int
    files: int


class Result(Struct, frozen=True, kw_only=True, tag_field="event", tag="result"):
    """The result of a run. Only `no_space` has `needed_bytes` and `free_bytes`. `revision` is empty
    if the source gave none. `manifest_digest` is the sha256 of the manifest after a complete
    fetch."""

    outcome: Outcome
    exit_code: int
    message: str
    uri: str
    revision: str
    bytes: int
    files: int
    seconds: float
    needed_bytes: int | UnsetType = UNSET
    free_bytes: int | UnsetType = UNSET
    manifest_digest: str | UnsetType = UNSET


class Reporter:
    """Writes the lines. None of them contains a value of `secrets`."""

    def __init__(
        self,
        out: TextIO,
        *,
        secrets: Iterable[str] = (),
        termination_log: Path | None = None,
        make_termination_log: bool = False,
    ) -> None:
        self._out = out
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._termination_log = termination_log
        self._make = make_termination_log

    def progress(self, line: Progress) -> None:
        self._write(msgspec.json.encode(line))

    def result(self, line: Result) -> None:
        """Write the last line, also as the termination message if that file can be written."""
        redacted = msgspec.structs.replace(
            line, message=redact(line.message, self._secrets), uri=redact(line.uri, self._secrets)
        )
        self._write(msgspec.json.encode(redacted))
        if self._termination_log:
            write_termination_message(
                self._termination_log, termination_message(redacted), make=self._make
            )

    def _write(self, data: bytes) -> None:
        self._out.write(data.decode() + "\n")
        self._out.flush()


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text without these values, without anything that has the form of a credential, without
    user names in URLs, and without URL queries (they carry signatures)."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _CREDENTIALS.sub(_hidden, _URL_SECRETS.sub("", text))


def _hidden(match: re.Match[str]) -> str:
    return f"{match['name'] or match['field'] or match['scheme'] or ''}***"


def secrets_in(env: Mapping[str, str]) -> list[str]:
    """The values in the environment that must not be printed. Each also in the form that is sent,
    without the newline that a Secret's value often ends in."""
    values = [value for name, value in env.items() if _SECRET_NAMES.fullmatch(name)]
    return [
        form
        for form in dict.fromkeys([*values, *(value.strip() for value in values)])
        if form.strip()
    ]


def termination_message(line: Result) -> bytes:
    """The line as JSON of at most TERMINATION_BYTES_MAX bytes; a long message is cut."""
    data = msgspec.json.encode(line)
    while len(data) > TERMINATION_BYTES_MAX and line.message:
        over = len(data) - TERMINATION_BYTES_MAX
        line = msgspec.structs.replace(line, message=line.message[: -max(1, over // 6)])
        data = msgspec.json.encode(line)
    return data


def write_termination_message(path: Path, data: bytes, *, make: bool) -> None:
    """Write the file if that is possible. Never raises."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC | (os.O_CREAT if make else 0), 0o644)
    except OSError:
        return
    try:
        os.write(handle, data)
    except OSError:
        return
    finally:
        os.close(handle)
