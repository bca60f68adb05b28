"""Which credentials of a pull secret are for an image, by the rules of docker and of the kubelet's keyring (pkg/credentialprovider).

1. An entry's key is a host, with an optional scheme, port and path; `/v1` and `/v2` in front of the path mean the registry itself.
2. `*` and other shell patterns stand for (parts of) one label of the host; the number of labels and the port have to be the same.
3. The path is a prefix of the image's. The more special entry comes first; all that match are tried in order.
4. `index.docker.io` is Docker Hub.
5. `auth` is base64 of user:password; where it is absent, `username` and `password` count.
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

SECRET_TYPE = "kubernetes.io/dockerconfigjson"  # noqa: S105 (a type, no secret)
SECRET_KEY = ".dockerconfigjson"  # noqa: S105
_HUB_KEYS = frozenset({"index.docker.io", "docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Never shown: neither field is part of the repr."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


Entry = tuple[str, Credentials]


def entries_of(secret: dict[str, Any]) -> list[Entry]:
    """The usable entries of a Secret as the API serves it. Raises ValueError, which quotes nothing of the Secret's content."""
    if secret.get("type") != SECRET_TYPE:
        raise ValueError(f"is not of type {SECRET_TYPE}")
    try:
        document = msgspec.json.decode(base64.b64decode((secret.get("data") or {})[SECRET_KEY], validate=True))
        auths = document["auths"]
        found = [(str(key), credentials) for key, entry in auths.items() if (credentials := _credentials(entry)) is not None]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError(f"has no docker configuration in {SECRET_KEY}") from None  # (the cause would quote the content)
    return found


def matching(entries: Iterable[Entry], image: Image) -> list[Credentials]:
    """Those to be tried for the image, in order, each once."""
    found = [(_place_of(key), credentials) for key, credentials in entries]
    fitting = sorted(((place, each) for place, each in found if place is not None and _fits(place, image)), key=lambda pair: pair[0], reverse=True)
    return list(dict.fromkeys(credentials for _, credentials in fitting))


def _credentials(entry: Any) -> Credentials | None:
    if entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return Credentials(username, password.rstrip("\0")) if colon else None
    if entry.get("username") and entry.get("password"):
        return Credentials(str(entry["username"]), str(entry["password"]))
    return None


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
    wanted, wanted_port = _host_and_port(image.registry.lower())
    if port != wanted_port or not f"/{image.repository}".startswith(path):
        return False
    labels, wanted_labels = name.split("."), wanted.split(".")
    return name == wanted or (len(labels) == len(wanted_labels) and all(map(fnmatch.fnmatchcase, wanted_labels, labels)))


def _host_and_port(host: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?)(?::([0-9]+))?", host)
    assert found is not None
    return found[1], found[2] or ""
