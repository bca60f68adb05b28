"""Just enough protobuf for `kubectl create namespace`, `configmap`, `secret` and `serviceaccount`,
and for helm, which send nothing else. Pure.

The envelope is runtime.Unknown behind a magic number; field numbers are those of the kinds'
generated.proto. Unlisted fields are skipped.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

from aimlab.apiserver.errors import ApiError, bad_request
from aimlab.apiserver.objects import Json, Obj

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
Reader = Callable[[Any], Json]


def _text(raw: bytes) -> str:
    return raw.decode()


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _pairs(value: Reader) -> Reader:
    """One entry of a map field, as a mapping to be merged."""

    def read(raw: bytes) -> Obj:
        entry = dict(_fields(raw))
        return {_text(entry.get(1, b"")): value(entry.get(2, b""))}

    return read


def _message(layout: dict[int, tuple[str, Reader]]) -> Reader:
    def read(raw: bytes) -> Obj:
        found: Obj = {}
        for number, content in _fields(raw):
            if number in layout:
                name, reader = layout[number]
                value = reader(content)
                merges = isinstance(value, dict) and name in found
                found[name] = {**found[name], **value} if merges else value
        return {name: value for name, value in found.items() if value not in ("", {})}

    return read


META = _message(
    {
        1: ("name", _text),
        2: ("generateName", _text),
        3: ("namespace", _text),
        11: ("labels", _pairs(_text)),
        12: ("annotations", _pairs(_text)),
    }
)
_RESOURCE = _message(
    {
        1: ("namespace", _text),
        2: ("verb", _text),
        3: ("group", _text),
        5: ("resource", _text),
        6: ("subresource", _text),
        7: ("name", _text),
    }
)
_PATH = _message({1: ("path", _text), 2: ("verb", _text)})
_PRECONDITIONS = _message({1: ("uid", _text), 2: ("resourceVersion", _text)})
KINDS: dict[str, Reader] = {
    "Namespace": _message({1: ("metadata", META)}),
    "ServiceAccount": _message({1: ("metadata", META)}),
    "TokenRequest": _message(
        {1: ("metadata", META), 2: ("spec", _message({4: ("expirationSeconds", int)}))}
    ),
    "SelfSubjectAccessReview": _message(
        {
            1: ("metadata", META),
            2: (
                "spec",
                _message(
                    {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}
                ),
            ),
        }
    ),
    "DeleteOptions": _message(
        {
            1: ("gracePeriodSeconds", int),
            2: ("preconditions", _PRECONDITIONS),
            4: ("propagationPolicy", _text),
        }
    ),
    "ConfigMap": _message(
        {
            1: ("metadata", META),
            2: ("data", _pairs(_text)),
            3: ("binaryData", _pairs(_base64)),
            4: ("immutable", bool),
        }
    ),
    "Secret": _message(
        {
            1: ("metadata", META),
            2: ("data", _pairs(_base64)),
            3: ("type", _text),
            4: ("stringData", _pairs(_text)),
            5: ("immutable", bool),
        }
    ),
}


def decode(raw: bytes) -> Obj:
    """The object in a protobuf body. ApiError 415 for kinds that are not listed here, 400 for a
    broken body."""
    if not raw.startswith(MAGIC):
        raise bad_request("the body is not Kubernetes protobuf")
    try:
        envelope = dict(_fields(raw[len(MAGIC) :]))
        kind = {number: _text(content) for number, content in _fields(envelope[1])}
        if kind.get(2) not in KINDS:
            what = (
                f"{kind.get(2)} is not taken as protobuf here: send JSON or YAML, for example with"
                " `kubectl apply -f`"
            )
            raise ApiError(415, "UnsupportedMediaType", what)
        return {"apiVersion": kind[1], "kind": kind[2], **KINDS[kind[2]](envelope[2])}
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise bad_request("the protobuf body is broken") from error


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and contents: bytes, or a number for varints."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        match tag & 7:
            case 0:
                value, at = _varint(raw, at)
                yield tag >> 3, value
            case 2:
                size, at = _varint(raw, at)
                yield tag >> 3, raw[at : at + size]
                at += size
            case 1 | 5 as wire:
                at += 8 if wire == 1 else 4
            case _:
                raise IndexError(at)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
