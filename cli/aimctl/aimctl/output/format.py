"""Formats foreign text for a terminal, and objects, times and durations for people."""

from rich.text import Text

from aimctl.output.console import PlainConsole
from aimschema import quantities
from aimschema.messages import Progress
from aimschema.sanitize import printable


def print_text(console: PlainConsole, text: str, style: str = "") -> None:
    """A line as it is: nothing in it is markup, and it is not broken."""
    console.print(Text(printable(text), style=style), soft_wrap=True, highlight=False)


def seconds(duration_s: float) -> str:
    """A duration in its two largest units: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`."""
    if duration_s < 10:
        return f"{max(0.0, duration_s):.1f} s"
    whole = round(duration_s)
    for unit, name, smaller, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def progress_text(progress: Progress) -> str:
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    amount = f"{quantities.human(progress.bytes)} of {quantities.human(progress.total)}"
    return f"{progress.phase} {amount} at {quantities.human(progress.rate)}/s{left}"


def print_command(console: PlainConsole, command: str) -> None:
    """A command to paste."""
    console.print(f"  {command}", soft_wrap=True)
