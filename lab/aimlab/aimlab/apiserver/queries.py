"""Lists: selectors, paging and versions, from query parameters to stored entries. Pure.

A page sequence shows the collection as it was at the version of its first page (410 once that is
out of the history).
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from aimlab.apiserver import selectors
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, bad_request, expired_error
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Obj
from aimlab.apiserver.store import Collection, Entry


class Token(msgspec.Struct):
    """A continue token: the version of the list and the key after which it continues."""

    v: str
    rv: int
    start: str


@dataclass(frozen=True)
class Selection:
    """What a list or watch is about. `namespace` None means all."""

    resource: Resource
    namespace: str | None
    labels: selectors.Test | None
    fields: selectors.Test | None

    def takes(self, entry: Entry) -> bool:
        """Whether an entry is in the selection; field selectors see the object as this version
        shows it."""
        if (
            self.namespace is not None
            and (entry.obj["metadata"].get("namespace") or "") != self.namespace
        ):
            return False
        if self.labels and not self.labels(entry.obj):
            return False
        return self.fields is None or self.fields(self.resource.view(entry.obj))


@dataclass(frozen=True)
class Page:
    """Part of a list. `token` continues it, empty at the end; `remaining` is only known without
    selectors."""

    entries: list[Entry]
    version: int
    token: str = ""
    remaining: int | None = None

    def metadata(self, *, always_token: bool) -> Obj:
        """ListMeta; lists of custom kinds always write `continue`."""
        found: Obj = {"resourceVersion": str(self.version)}
        if self.token or always_token:
            found["continue"] = self.token
        if self.remaining:
            found["remainingItemCount"] = self.remaining
        return found


def selection(resource: Resource, namespace: str | None, query: Mapping[str, str]) -> Selection:
    """The selection a query asks for. ApiError 400 for malformed or unsupported selectors."""
    by_fields = selectors.fields(query.get("fieldSelector", ""), resource.selectable)
    return Selection(
        resource, namespace, selectors.labels(query.get("labelSelector", "")), by_fields
    )


def version_of(text: str) -> int:
    """A resourceVersion as a number, 0 for none. ApiError 500 as a real server has it."""
    if not text:
        return 0
    if not text.isdigit():
        what = (
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}":'
            " invalid syntax"
        )
        raise ApiError(500, "", what)
    return int(text)


def page(cluster: Cluster, chosen: Selection, query: Mapping[str, str]) -> Page:
    """One page. ApiError 400, 410 (too old) or 504 (too new)."""
    collection = cluster.store.collections[chosen.resource.storage]
    limit = int(query["limit"]) if query.get("limit", "").isdigit() else 0
    token = _token(query["continue"]) if query.get("continue") else None
    version = token.rv if token else version_of(query.get("resourceVersion", ""))
    if version > cluster.store.version:
        raise _too_new(version, cluster.store.version)
    if token or query.get("resourceVersionMatch") == "Exact":
        entries = _entries_at(cluster, collection, chosen, version)
    else:
        entries, version = collection.entries(chosen.namespace), cluster.store.version
    entries = [entry for entry in entries if chosen.takes(entry)]
    if token:
        entries = [entry for entry in entries if _key(entry) > token.start]
    if not limit or len(entries) <= limit:
        return Page(entries, version)
    more = _token_text(Token("meta.k8s.io/v1", version, _key(entries[limit - 1])))
    selective = chosen.labels or chosen.fields
    return Page(entries[:limit], version, more, None if selective else len(entries) - limit)


def _entries_at(
    cluster: Cluster, collection: Collection, chosen: Selection, version: int
) -> list[Entry]:
    if version == cluster.store.version:
        return collection.entries(chosen.namespace)
    if version < collection.floor:
        raise expired_error(
            "The provided continue parameter is too old to display a consistent list result. Start"
            " a new list without it."
        )
    return collection.entries_at(chosen.namespace, version)


def _key(entry: Entry) -> str:
    metadata = entry.obj["metadata"]
    return f"{metadata.get('namespace') or ''}\0{metadata['name']}"


def _token_text(token: Token) -> str:
    return urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _token(text: str) -> Token:
    """The token in URL-safe base64 without padding, as the real server writes it. ApiError 400 for
    what is not JSON, in the server's wording."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=Token)
    except NotBase64 as error:
        why = str(error)
    except msgspec.DecodeError as error:
        why = (
            str(error)
            if raw[:1] in {b"{", b""}
            else f"invalid character '{_as_go_quotes(raw[0])}' looking for beginning of value"
        )
    raise bad_request(f"invalid continue token: continue key is not valid: {why}")


def _as_go_quotes(byte: int) -> str:
    return chr(byte) if chr(byte).isprintable() else f"\\u{byte:04x}"


def _too_new(version: int, current: int) -> ApiError:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    return ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {version}, current: {current}",
        details,
    )
