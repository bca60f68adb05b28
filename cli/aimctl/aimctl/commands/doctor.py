"""Printing what was found."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from aimctl.doctor.checks import findings
from aimctl.doctor.collect import gather
from aimctl.doctor.snapshot import Finding, Level
from aimctl.invocation import a_console, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data

MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "error": ("✗", "bold red"),
}


async def show_findings(kubeconfig: Path | None, console: PlainConsole, form: Form) -> bool:
    """False where there is an error. Raises ValueError or OSError for a GPU table that cannot be
    read."""
    found = findings(await gather(kubeconfig))
    if form == "text":
        print_findings(found, console)
    else:
        print_data(console, [asdict(finding) for finding in found], form)
    return all(finding.level != "error" for finding in found)


def print_findings(found: Sequence[Finding], console: PlainConsole) -> None:
    """A line each, its fix below it, and how many of which there are."""
    width = max(len(finding.area) for finding in found)
    for finding in found:
        mark, style = MARKS[finding.level]
        print_text(
            console,
            f"{mark} {finding.area:<{width}}  {finding.what}",
            style if finding.level != "ok" else "",
        )
        if finding.fix:
            print_text(console, f"  {'':<{width}}  fix: {finding.fix}", "dim")
    counts = {level: sum(finding.level == level for finding in found) for level in MARKS}
    print_text(
        console,
        f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors",
        "bold",
    )


def doctor(kubeconfig: Path | None, form: Form) -> None:
    console = a_console()
    raise typer.Exit(0 if run(console, show_findings(kubeconfig, console, form)) else 1)
