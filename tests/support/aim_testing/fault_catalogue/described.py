"""The output of `kubectl describe` for eight of the faults: conditions and Warning Events, without
the parts that differ from run to run.

The output is of the object of a case, once the fault is reported. Normal Events are omitted: their
number depends on the load of the machine.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from aim_testing.fault_catalogue.place import Place
from aimlab.cli.environment import kubectl
from aimschema import reasons

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "describe.md"
DESCRIBED = {
    "no-tag": ("aimclm", "no-tag"),
    "no-model": ("aimst", "t"),
    "duplicate-source": ("mc", "c"),
    "too-small": ("mc", "c"),
    "no-template": ("aimsvc", "s"),
    "unknown-gpu": ("aimsvc", "s"),
    "absent-gateway": ("aimns", "default"),
    "config-classless": ("aimns", "default"),
}
"""The described object of each case, as typed. Only faults with a stable message, so that a
regenerated page has the same text."""
_SAME = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "(uid)"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "(time)"),
    (r"127\.0\.0\.1:\d+", "(address)"),
)


async def describe(place: Place) -> str:
    """Conditions and Events of the object that the case is described by."""
    kind, name = DESCRIBED[place.name]
    where = () if kind == "aimclm" else ("-n", place.name)
    return excerpt(await kubectl(place.stack.lab, "describe", kind, name, *where))


def command(case: str) -> str:
    kind, name = DESCRIBED[case]
    return f"kubectl describe {kind} {name}" + ("" if kind == "aimclm" else f" -n {case}")


def excerpt(text: str) -> str:
    """Of a description the block of conditions, where there is one, and the Warning Events with
    their age taken out."""
    lines, chosen = text.splitlines(), list[str]()
    start = next(
        (number for number, line in enumerate(lines) if line.strip() == "Conditions:"), len(lines)
    )
    for line in lines[start:]:
        if chosen and len(line) - len(line.lstrip()) <= len(chosen[0]) - len(chosen[0].lstrip()):
            break
        chosen.append(line)
    conditions = chosen[:1] + [
        line for block in sorted(_blocks(chosen[1:]), key=_rank) for line in block
    ]
    warnings = [
        f"  Warning  {fields[1]}  {fields[4]}"
        for line in lines
        if (fields := re.split(r"\s{2,}", line.strip(), maxsplit=4))[0] == "Warning"
    ]
    events = ["Events:", *sorted(set(warnings))] if warnings else ["Events: no Warning"]
    found = "\n".join([*conditions, *events])
    for pattern, word in _SAME:
        found = re.sub(pattern, word, found)
    return found


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """The lines of one condition each; the last says its type."""
    block: list[str] = []
    for line in lines:
        block.append(line)
        if line.strip().startswith("Type:"):
            yield block
            block = []


def _rank(block: list[str]) -> tuple[int, str]:
    """The summary first, then by type: the server keeps the order in which conditions were first
    written, which differs from run to run."""
    type_ = block[-1].split()[-1]
    return (
        reasons.DERIVED.index(type_) if type_ in reasons.DERIVED else len(reasons.DERIVED),
        type_,
    )


def page(texts: dict[str, str], faults: dict[str, str]) -> str:
    head = """# What `kubectl describe` prints

For eight of the faults in [faults.md](faults.md), from the same run of `make fault-docs`: the
conditions and the Warning Events of the affected object. Times, uids and addresses are replaced and
the conditions are sorted, so that the page does not depend on the run.
"""
    return head + "".join(
        f"\n## {faults[case][0].upper()}{faults[case][1:]}\n\n"
        f"`{command(case)}`\n\n```text\n{text}\n```\n"
        for case, text in texts.items()
    )
