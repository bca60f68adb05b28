"""Subjects of the bus: only this module builds and parses them.

1. A subject consists of tokens separated by dots, and Kubernetes names may contain dots. They never
   contain an underscore (RFC 1123 subdomains), so `.` is encoded as `_` without loss.
2. A cluster-scoped object has `-` instead of a namespace, which is no valid namespace (RFC 1123
   labels).
3. The dead letter of an undecodable message contains that message's subject within its own. An
   invalid subject, or one longer than any of ours, is replaced by its hash: the server closes a
   connection for a line of 4,096 bytes, subject and reply together.
"""

import hashlib
from typing import NamedTuple

from aimschema.resources import Key

OBJECT = "aim.object"
SYNCED = "aim.synced"
REPORT = "aim.report"
ACTION = "aim.action"
DEAD = "aim.dead"
UNREADABLE = "unreadable"
LIVE_PROGRESS = "aimlive.progress"
HISTORY = "aimhistory"
ALL = "aim.>"
LONGEST = 512
"""Maximum bytes of our subjects: Kubernetes limits a kind and a namespace to 63 characters and a
name to 253."""


def _token(name: str | None) -> str:
    return "-" if name is None else name.replace(".", "_")


def _name(token: str) -> str:
    return token.replace("_", ".")


def _path(key: Key) -> str:
    return f"{key.kind}.{_token(key.namespace)}.{_token(key.name)}"


def _key(kind: str, namespace: str, name: str) -> Key:
    return Key(kind, None if namespace == "-" else _name(namespace), _name(name))


def of_object(key: Key) -> str:
    return f"{OBJECT}.{_path(key)}"


def of_synced(kind: str) -> str:
    return f"{SYNCED}.{kind}"


def of_report(key: Key, service: str) -> str:
    return f"{REPORT}.{_path(key)}.{service}"


def of_action(service: str, key: Key) -> str:
    return f"{ACTION}.{service}.{_path(key)}"


def of_dead(service: str, key: Key) -> str:
    return f"{DEAD}.{service}.{_path(key)}"


def of_unreadable(service: str, subject: str) -> str:
    """For the dead letter of `service` on a message on `subject`, valid or not."""
    address = try_parse(subject)
    if address is None or address.family == DEAD or len(subject) > LONGEST or not subject.isascii():
        return f"{DEAD}.{service}.{UNREADABLE}.{hashlib.sha256(subject.encode()).hexdigest()[:16]}"
    return f"{DEAD}.{service}.{UNREADABLE}.{subject.removeprefix('aim.')}"


def of_progress(key: Key) -> str:
    return f"{LIVE_PROGRESS}.{_path(key)}"


def of_history(key: Key) -> str:
    return f"{HISTORY}.{_path(key)}"


def history_in(namespace: str | None, kind: str = "*") -> str:
    """Filter for the history of the objects of a namespace; None: of cluster-scoped objects."""
    return f"{HISTORY}.{kind}.{_token(namespace)}.*"


def objects(kind: str) -> str:
    """Filter for all objects of a kind."""
    return f"{OBJECT}.{kind}.>"


def objects_in(kind: str, namespace: str | None) -> str:
    """Filter for the objects of a kind in a namespace; None: of a cluster-scoped kind."""
    return f"{OBJECT}.{kind}.{_token(namespace)}.*"


def reports(kind: str = "*", service: str = "*") -> str:
    """Filter for status reports, by kind and by the service that sends them."""
    return f"{REPORT}.{kind}.*.*.{service}"


def actions(service: str, kind: str = "*") -> str:
    """Filter for what a service did to objects of a kind."""
    return f"{ACTION}.{service}.{kind}.>"


def progress(kind: str) -> str:
    """Filter for the live progress of all objects of a kind."""
    return f"{LIVE_PROGRESS}.{kind}.>"


def in_namespace(namespace: str) -> list[str]:
    """Filters for objects, reports and actions of a namespace and of cluster-scoped objects, and
    for all markers; they do not overlap."""
    tokens = (_token(namespace), _token(None))
    about = [
        f"{place.format(token)}"
        for token in tokens
        for place in (f"{OBJECT}.*.{{}}.*", f"{REPORT}.*.{{}}.*.*", f"{ACTION}.*.*.{{}}.*")
    ]
    return [*about, f"{SYNCED}.*"]


def dead_letters(service: str = "*") -> str:
    """Filter for dead letters, by the sending service."""
    return f"{DEAD}.{service}.>"


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject, or every subject of a filter, is of a filter (`*`: one token, `>`: one
    or more, at the end)."""
    pattern_tokens, tokens = pattern.split("."), subject.split(".")
    if pattern_tokens[-1] == ">" and len(tokens) >= len(pattern_tokens):
        pattern_tokens.pop()
        tokens = tokens[: len(pattern_tokens)]
    return len(pattern_tokens) == len(tokens) and all(
        want == here or (want == "*" and here != ">")
        for want, here in zip(pattern_tokens, tokens, strict=True)
    )


class Address(NamedTuple):
    """A parsed subject. `service` is None for objects; `key` is None for the sync marker of a kind.

    For the dead letter of an undecodable message, `kind` and `key` are that message's; empty and
    None if its subject is invalid.
    """

    family: str
    kind: str
    key: Key | None
    service: str | None


def parse(subject: str) -> Address:
    """The inverse of the builders above. Raises ValueError for a subject that none of them
    makes."""
    match subject.split("."):
        case ["aim", "object", kind, namespace, name]:
            return Address(OBJECT, kind, _key(kind, namespace, name), None)
        case ["aim", "synced", kind]:
            return Address(SYNCED, kind, None, None)
        case ["aim", "report", kind, namespace, name, service]:
            return Address(REPORT, kind, _key(kind, namespace, name), service)
        case ["aim", "dead", service, "unreadable", _]:
            return Address(DEAD, "", None, service)
        case ["aim", "dead", service, "unreadable", *original]:
            about = parse(".".join(["aim", *original]))
            return Address(DEAD, about.kind, about.key, service)
        case ["aim", ("action" | "dead") as family, service, kind, namespace, name]:
            return Address(f"aim.{family}", kind, _key(kind, namespace, name), service)
        case ["aimlive", "progress", kind, namespace, name]:
            return Address(LIVE_PROGRESS, kind, _key(kind, namespace, name), None)
        case ["aimhistory", kind, namespace, name]:
            return Address(HISTORY, kind, _key(kind, namespace, name), None)
        case _:
            raise ValueError(f"not a subject of this project: {subject!r}")


def try_parse(subject: str) -> Address | None:
    """What `parse` says, or None for a subject that makes no sense."""
    try:
        return parse(subject)
    except ValueError:
        return None
