"""Finds the credentials of a pull secret that are for an image, by the rules of docker and of the
kubelet's keyring (pkg/credentialprovider). Pure.

1. An entry's key is a host, with an optional scheme, port and path; `/v1` and `/v2` in front of the
   path mean the registry itself.
2. `*` and other shell patterns match (parts of) one label of the host. The number of labels and the
   port have to be equal.
3. The path is a prefix of the image's. The more specific entry comes first; all that match are
   tried in order.
4. `index.docker.io` is Docker Hub.
5. `auth` is base64 of user:password; without it `username` and `password` count. An `identitytoken`
   comes before both, if the registry has a token server.
6. A Secret is of one of two types, as for the kubelet: dockerconfigjson (entries below `auths`),
   and the older dockercfg (entries alone), which OpenShift still creates.
"""

import base64
import binascii
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from aim_discovery.image import DOCKER_HUB, Image

CONFIG_JSON = "kubernetes.io/dockerconfigjson"
CFG = "kubernetes.io/dockercfg"
_KEYS = {CONFIG_JSON: ".dockerconfigjson", CFG: ".dockercfg"}
"""By type of the Secret, where its configuration is."""
_HUB_KEYS = frozenset({"index.docker.io", "docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Never shown: no field is part of the repr."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(repr=False, default="")

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


Entry = tuple[str, Credentials]
_FIELDS = ("auth", "username", "password", "identitytoken")


def entries_of(secret: dict[str, Any]) -> list[Entry]:
    """The usable entries of a Secret as the API serves it. Raises ValueError, which quotes
    nothing of the Secret's content."""
    entries = _entries(secret)
    found = [
        (str(key), who)
        for key, entry in entries.items()
        if (who := _credentials(entry)) is not None
    ]
    if not found and not all(map(_is_entry, entries.values())):
        raise ValueError(f"has no docker configuration in {_KEYS[secret['type']]}")
    return found


def unusable_entries(secret: dict[str, Any]) -> str:
    """How many entries are passed over, and why; empty for none. Their keys may be secrets too.
    Raises ValueError as `entries_of`."""
    passed = [1 for entry in _entries(secret).values() if _credentials(entry) is None]
    required = "auth (base64 of user:password), username and password, or identitytoken"
    return (
        f"has {len(passed)} entries in {_KEYS[secret['type']]} without a usable {required}"
        if passed
        else ""
    )


def _entries(secret: dict[str, Any]) -> dict[Any, Any]:
    """By registry. Raises ValueError, which quotes nothing of the Secret's content."""
    key = _KEYS.get(str(secret.get("type")))
    if key is None:
        raise ValueError(f"is not of type {CONFIG_JSON} or {CFG}")
    try:
        document = msgspec.json.decode(
            base64.b64decode((secret.get("data") or {})[key], validate=True)
        )
        entries = document["auths"] if key == _KEYS[CONFIG_JSON] else document
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        entries = None  # (the cause would quote the content)
    if not isinstance(entries, dict):
        raise ValueError(f"has no docker configuration in {key}")  # noqa: TRY004 (of the Secret)
    return entries


def matching(entries: Iterable[Entry], image: Image) -> list[Credentials]:
    """Those to be tried for the image, in order, each once."""
    found = [(_place_of(key), credentials) for key, credentials in entries]
    fitting = sorted(
        ((place, each) for place, each in found if place is not None and _fits(place, image)),
        key=lambda pair: pair[0],
        reverse=True,
    )
    return list(dict.fromkeys(credentials for _, credentials in fitting))


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(name) or "", str) for name in _FIELDS
    )


def _credentials(entry: Any) -> Credentials | None:
    """None for an entry without usable ones."""
    if not _is_entry(entry):
        return None
    auth, username, password, token = (entry.get(name) or "" for name in _FIELDS)
    if auth:
        try:
            username, colon, password = _decode_auth(auth).partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if colon:
            return Credentials(username, password.rstrip("\0"), token)
        username = password = ""
    return Credentials(username, password, token) if token or (username and password) else None


def _decode_auth(auth: str) -> str:
    """base64 as the kubelet takes it: with or without padding, line breaks left out. Raises
    binascii.Error, UnicodeDecodeError."""
    bare = "".join(auth.split()).rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()


def _place_of(key: str) -> tuple[str, str] | None:
    """(host[:port], path) of an entry's key."""
    try:
        parts = urlsplit(key if re.match("https?://", key) else f"https://{key}")
    except ValueError:
        return None
    path = re.sub(r"^/v[12](?=/|$)", "", parts.path)
    host = parts.netloc.lower()
    return (DOCKER_HUB if host in _HUB_KEYS else host), path.rstrip("/")


def _fits(place: tuple[str, str], image: Image) -> bool:
    host, path = place
    name, port = _host_and_port(host)
    required, required_port = _host_and_port(image.registry.lower())
    if port != required_port or not f"/{image.repository}".startswith(path):
        return False
    labels = name.split(".")
    required_labels = required.split(".")
    return name == required or (
        len(labels) == len(required_labels)
        and all(map(fnmatch.fnmatchcase, required_labels, labels))
    )


def _host_and_port(host: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?)(?::([0-9]+))?", host)
    assert found is not None
    return found[1], found[2] or ""
