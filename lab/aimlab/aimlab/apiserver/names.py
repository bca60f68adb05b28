"""Names and labels: what Kubernetes accepts (RFC 1123, RFC 1035, qualified names) and how a
generated name ends. Pure but for randomness."""

import random
import re
from collections.abc import Iterable

from aimlab.apiserver.errors import Cause
from aimlab.apiserver.objects import Json

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and"
    " must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used"
    f" for validation is '{LABEL}')"
)
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    " '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used"
    f" for validation is '{SUBDOMAIN}')"
)
VALUE = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]|")
KEY = re.compile(rf"({SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
MOST_ANNOTATION_BYTES = 256 << 10
SUFFIX_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"


def generate_name(prefix: str) -> str:
    """A name from `generateName`: at most 63 characters, five of them random."""
    return prefix[:58] + "".join(random.choices(SUFFIX_CHARACTERS, k=5))  # noqa: S311  names, not secrets


def bad_name(name: str, kind: str, *, path_names: bool) -> list[Cause]:
    """What is wrong with metadata.name."""
    if path_names:
        bad = name in (".", "..") or "/" in name or "%" in name
        return (
            [
                Cause(
                    "metadata.name",
                    "FieldValueInvalid",
                    f"Invalid value: \"{name}\": may not contain '/' or '%'",
                )
            ]
            if bad
            else []
        )
    single = kind in ("Namespace", "Service")
    if len(name) > (63 if single else 253):
        limit = f"must be no more than {63 if single else 253} bytes"
        return [Cause("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {limit}')]
    if not re.fullmatch(LABEL if single else SUBDOMAIN, name):
        rule = LABEL_RULE if single else SUBDOMAIN_RULE
        return [Cause("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {rule}')]
    return []


def bad_annotations(annotations: Json) -> list[Cause]:
    """What is wrong with metadata.annotations: names are as those of labels, values anything,
    all of it at most 256 KiB."""
    if annotations is None:
        return []
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        return [
            Cause(
                "metadata.annotations",
                "FieldValueTypeInvalid",
                "Invalid value: must be a map of strings",
            )
        ]
    rule = "is not a valid annotation key: a name of up to 63 letters, digits, -, _ or ."
    causes = [
        Cause("metadata.annotations", "FieldValueInvalid", f'Invalid value: "{key}": {rule}')
        for key in annotations
        if not _is_key(key.lower())
    ]
    if (
        sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
        > MOST_ANNOTATION_BYTES
    ):
        causes.append(
            Cause(
                "metadata.annotations",
                "FieldValueTooLong",
                f"Too long: may not be more than {MOST_ANNOTATION_BYTES} bytes",
            )
        )
    return causes


def _is_key(key: str) -> bool:
    return KEY.fullmatch(key) is not None and len(key.rsplit("/", maxsplit=1)[-1]) <= 63


def bad_labels(labels: Json, path: str = "metadata.labels") -> list[Cause]:
    """What is wrong with a map of labels."""
    if labels is None:
        return []
    if not isinstance(labels, dict):
        return [Cause(path, "FieldValueTypeInvalid", "Invalid value: must be a map of strings")]
    return list(_labels(labels.items(), path))


def _labels(labels: Iterable[tuple[str, Json]], path: str) -> Iterable[Cause]:
    for key, value in labels:
        if not _is_key(key):
            yield Cause(
                path,
                "FieldValueInvalid",
                f'Invalid value: "{key}": is not a valid label key: a name of up to 63 letters,'
                " digits, -, _ or .",
            )
        if not isinstance(value, str):
            yield Cause(path, "FieldValueTypeInvalid", f"Invalid value: {value}: must be a string")
        elif len(value) > 63:
            yield Cause(
                path,
                "FieldValueInvalid",
                f'Invalid value: "{value}": must be no more than 63 bytes',
            )
        elif not VALUE.fullmatch(value):
            yield Cause(
                path,
                "FieldValueInvalid",
                f'Invalid value: "{value}": a valid label is empty or made of letters, digits, -, _'
                " or .",
            )
