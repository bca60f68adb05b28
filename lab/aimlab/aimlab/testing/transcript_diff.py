"""The recorded answers of a real kube-apiserver: reads them, and compares them with other answers.
Pure, except for reading files.

Placeholders are bound at their first use: equal `<rv:N>` and `<uid:N>` must be equal values,
different N different values.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

ORDER = (
    "discovery",
    "create",
    "validation",
    "update-and-generation",
    "server-side-apply",
    "list-and-select",
    "watch",
    "delete-finalizers-owners",
    "core-kinds",
    "immutable",
    "pod-security",
    "quota",
    "create-only",
)
"""The topics, each on the state that those before it left."""

MICRO_TIMES = frozenset({"acquireTime", "renewTime", "eventTime", "lastObservedTime"})
"""Fields that a real server takes with six digits of a second only (metav1.MicroTime)."""

PLACEHOLDER = re.compile(r"<(rv|uid):(\d+)>|<time>|<continue>")
MICRO_TIME = "2026-01-01T00:00:00.000000Z"
Step = dict[str, Any]
Place = tuple[str, int]
"""A topic and the number of a step in it."""


def steps(folder: Path) -> list[Step]:
    """Every recorded step, in the order of the recording. Raises OSError, and ValueError for a step
    of an unknown form."""
    found = []
    for topic in ORDER:
        for line in (folder / f"{topic}.jsonl").read_text().splitlines()[1:]:
            step = msgspec.json.decode(line)
            if ("request" in step) == ("watch" in step):
                raise ValueError(f"neither a request nor a watch in {topic}.jsonl: {line}")
            found.append(step)
    return found


def place(step: Step) -> Place:
    return step["case"], step["step"]


class Bindings:
    """What placeholders stand for, both ways."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.token = ""

    def fill(self, value: Any) -> Any:
        """A request with its placeholders replaced; an unbound one stands for a missing object."""
        if isinstance(value, dict):
            return {
                key: MICRO_TIME if key in MICRO_TIMES and item == "<time>" else self.fill(item)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return PLACEHOLDER.sub(self._value, value) if isinstance(value, str) else value

    def _value(self, match: re.Match[str]) -> str:
        if match[1] is None:
            return "2026-01-01T00:00:00.000000Z"
        return self.values.get(
            match[0], "1" if match[1] == "rv" else "00000000-0000-0000-0000-000000000000"
        )

    def text(self, expected: str, actual: Any) -> bool:
        """Whether a text with placeholders fits; binds new ones."""
        if not isinstance(actual, str):
            return False
        pattern, placeholders = "", list(PLACEHOLDER.finditer(expected))
        at = 0
        for match in placeholders:
            pattern += re.escape(expected[at : match.start()]) + r"([^\s\")]+?)"
            at = match.end()
        found = re.fullmatch(pattern + re.escape(expected[at:]), actual)
        return bool(found) and all(
            self._bind(match[0], value)
            for match, value in zip(placeholders, found.groups() if found else (), strict=True)
        )

    def _bind(self, name: str, value: str) -> bool:
        if name == "<time>":
            return bool(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value))
        if name == "<continue>":
            self.token = value
            return bool(value)
        if name not in self.values:
            if value in self.values.values():
                return False
            self.values[name] = value
        return self.values[name] == value


class Missing:
    """Stands for a field that is not there."""

    def __repr__(self) -> str:
        return "nothing"


MISSING = Missing()


@dataclass(frozen=True)
class Difference:
    """One place where an answer is not the recorded one."""

    path: str
    recorded: Any
    got: Any

    def __str__(self) -> str:
        return f"{self.path}: recorded {self.recorded!r}, got {self.got!r}"


def differences(
    bound: Bindings, expected: Any, actual: Any, path: str = ""
) -> Iterator[Difference]:
    """Where an answer is not the recorded one."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        yield from _fields(bound, expected, actual, path)
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        if path.endswith(".managedFields"):
            expected, actual = (
                sorted(owners, key=lambda owner: str(owner["manager"]))
                for owners in (expected, actual)
            )
        elif path.endswith(
            ".details.causes"
        ):  # a schema's causes come in the order of a Go map, another one each time
            expected, actual = (
                sorted(causes, key=lambda cause: str(cause.get("field")))
                for causes in (expected, actual)
            )
        for index, (left, right) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(bound, left, right, f"{path}[{index}]")
    elif not (
        bound.text(expected, actual)
        if isinstance(expected, str)
        else expected == actual and type(expected) is type(actual)
    ):
        yield Difference(path, expected, actual)


def _fields(bound: Bindings, expected: Step, actual: Step, path: str) -> Iterator[Difference]:
    made_up = path.endswith("metadata") and "generateName" in expected
    for key in sorted(expected.keys() | actual.keys()):
        if key == "managedFields" and key not in expected:
            continue  # the recording has it only where a step is about ownership
        left, right = expected.get(key, MISSING), actual.get(key, MISSING)
        if made_up and key == "name":
            if not str(right).startswith(expected["generateName"]):
                yield Difference(f"{path}.name", left, right)
        elif left is MISSING or right is MISSING:
            yield Difference(f"{path}.{key}", left, right)
        else:
            yield from differences(bound, left, right, f"{path}.{key}")


@dataclass(frozen=True)
class Allowed:
    """Differences of a step that are no failure: what is got at `path` matches `value` (both
    patterns), and `why`."""

    path: str
    value: str
    why: str

    def covers(self, difference: Difference) -> bool:
        fits = re.fullmatch(self.path, difference.path) and difference.got is not MISSING
        return bool(fits and re.fullmatch(self.value, str(difference.got), re.DOTALL))
