"""`make fault-docs` triggers every fault on a laptop cluster.

It writes docs/reference/faults.md (where and how soon each is reported) and
docs/reference/describe.md.

Exit code 1 if anything failed."""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import structlog

from aim_testing.fault_catalogue import described
from aim_testing.fault_catalogue.case import Case
from aim_testing.fault_catalogue.run import (
    CASES,
    IMPATIENT,
    IN_TURN,
    TOGETHER,
    Result,
    in_turn,
    together,
)
from aimlab.cli.environment import control_plane_on_laptop

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "faults.md"


async def run() -> dict[str, Result]:
    with tempfile.TemporaryDirectory(prefix="aim-faults-") as made:
        folder = Path(made)
        files = folder / "files"
        files.mkdir()
        async with control_plane_on_laptop(folder / "together", settings=IMPATIENT) as stack:
            found = await together(stack, TOGETHER, files)
        async with control_plane_on_laptop(folder / "in-turn") as stack:
            return found | await in_turn(stack, IN_TURN, files)


def rows(cases: tuple[Case, ...], results: dict[str, Result]) -> list[str]:
    """The table of docs/reference/faults.md: a row for each condition that reports a case."""
    made = [
        "| fault | object | condition | reason | detected in | recovered in | test id |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        result = results[case.name]
        healed = "" if case.healed is None else seconds(result.healed_s)
        for number, row in enumerate(case.expected):
            first = (
                (case.fault, seconds(result.reported_s), healed, case.name)
                if number == 0
                else ("", "", "", "")
            )
            made.append(
                f"| {first[0]} | {row.kind.kind} | {row.condition} | {row.reason} | {first[1]} |"
                f" {first[2]} | {first[3]} |"
            )
    return made


def seconds(time_s: float) -> str:
    return f"{time_s:.0f} s" if time_s >= 1 else "at once"


if __name__ == "__main__":
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found = asyncio.run(run())
    head, mark, _ = PAGE.read_text().partition("<!-- written by make fault-docs -->\n\n")
    text = "\n".join(rows(CASES, found)) + "\n"
    PAGE.write_text(f"{head}{mark}{text}")
    faults = {case.name: case.fault for case in CASES}
    described.PAGE.write_text(
        described.page({name: found[name].described for name in described.DESCRIBED}, faults)
    )
    sys.stdout.write(text)
    for name, result in found.items():
        if result.problem:
            sys.stderr.write(f"{name}: {result.problem}\n")
    sys.exit(any(result.problem for result in found.values()))
