"""`make told`: brings every fault about on a laptop cluster and prints what is told, where, and after how long. Exit code 1 if anything failed."""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from aimctl.stack import control_plane_on_laptop
from toldlab.case import Case
from toldlab.run import CASES, Result, bring_all_about


async def run() -> dict[str, Result]:
    with tempfile.TemporaryDirectory(prefix="aim-told-") as made:
        folder = Path(made)
        files = folder / "files"
        files.mkdir()
        async with control_plane_on_laptop(folder / "lab") as stack:
            return await bring_all_about(stack, files)


def table(cases: tuple[Case, ...], results: dict[str, Result]) -> Table:
    made = Table(title="told after, healed after: seconds from cause to telling, and from the end of the cause to health")
    for column in ("fault", "object", "condition", "reason", "case", "told after", "healed after"):
        made.add_column(column, justify="right" if column.endswith("after") else "left")
    for case in cases:
        result = results[case.name]
        for number, told in enumerate(case.told):
            times = (f"{result.told_s:.1f}", f"{result.healed_s:.1f}" if case.healed is not None else "") if number == 0 else ("", "")
            fault, name = (case.fault, case.name) if number == 0 else ("", "")
            made.add_row(fault, told.kind.kind, told.condition, told.reason, name, *times, style="red" if result.problem else "")
    return made


if __name__ == "__main__":
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found = asyncio.run(run())
    console = Console(width=170 if not sys.stdout.isatty() else None)
    console.print(table(CASES, found))
    for name, result in found.items():
        if result.problem:
            console.print(f"{name}: {result.problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(any(result.problem for result in found.values()))
