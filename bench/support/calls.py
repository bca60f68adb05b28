"""The requests that the services send to the API server, counted by the server: the double counts
them itself, a real one in its audit log."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from aimlab.real.cluster import AUDIT_LOG, FOLDER
from support.raw import RawApi

ACCOUNTS = "system:serviceaccount:aim-system:aim-"


class Call(msgspec.Struct, frozen=True):
    """`resource` may have a subresource: aimservices/status."""

    service: str
    verb: str
    resource: str


Calls = Counter[Call]


class CallCounter:
    """Counts since the start of the server."""

    def __init__(self, api: RawApi, audit_log: Path | None) -> None:
        self._api = api
        self._audit_log = audit_log

    @classmethod
    def of_server(cls, api: RawApi, *, is_double: bool) -> "CallCounter | None":
        """None for a server whose requests are not counted."""
        if is_double:
            return cls(api, None)
        folder = os.environ.get(FOLDER)
        log = Path(folder) / AUDIT_LOG if folder else None
        return cls(api, log) if log is not None and log.exists() else None

    async def read(self) -> Calls:
        if self._audit_log is not None:
            return _from_audit(self._audit_log.read_bytes().splitlines())
        return _from_double(msgspec.json.decode(await self._api.text("/lab/calls")))


def _from_double(rows: list[dict[str, Any]]) -> Calls:
    counts: Calls = Counter()
    for row in rows:
        _count(counts, row["user"], row["verb"], row["resource"], row["count"])
    return counts


def _from_audit(lines: Iterable[bytes]) -> Calls:
    counts: Calls = Counter()
    for line in lines:
        event = msgspec.json.decode(line)
        target = event.get("objectRef") or {}
        sub = target.get("subresource")
        resource = target.get("resource", "") + (f"/{sub}" if sub else "")
        _count(counts, event["user"].get("username", ""), event["verb"], resource, 1)
    return counts


def _count(counts: Calls, user: str, verb: str, resource: str, amount: int) -> None:
    if user.startswith(ACCOUNTS):
        counts[Call(user.removeprefix(ACCOUNTS), verb, resource)] += amount
