"""docs/tutorial/kubectl.md: its commands run in a laptop cluster of `aimlab dev` and print what the
page shows.

Ages, names and column widths differ from run to run and count as equal. `…` in the page stands for
omitted lines. The output of `-w` is compared at the end: it must contain the page's lines in order.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "kubectl.md"
AIMLAB = str(Path(sys.executable).with_name("aimlab"))
LEFT_OUT = "…"
OWN = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
    (r"127\.\d+\.\d+\.\d+:\d+", "ADDRESS"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.,]+Z?", "TIME"),
    (r"\b(\d+m)?\d+(\.\d+)?m?s\b( ago)?", "AGE"),
    (r"[-\s]{2,}|\s+", " "),
]
pytestmark = pytest.mark.timeout(180)


class Typed(NamedTuple):
    """A command of the page and the lines that it shows under it."""

    command: str
    shown: list[str]


def session(page: str) -> list[Typed]:
    """The page's commands: `$ ` begins one in an indented block, and what follows up to the next
    or the block's end is its output."""
    found: list[Typed] = []
    for block in re.findall(r"(?:^(?:    .*)?\n)+", page, re.MULTILINE):
        lines = [line[4:] for line in block.strip("\n").splitlines()]
        for line in lines:
            if line.startswith("$ "):
                found.append(Typed(line[2:], []))
            elif line.strip():
                found[-1].shown.append(line)
    return found


def own(line: str) -> str:
    """With what differs from run to run made equal."""
    for pattern, placeholder in OWN:
        line = re.sub(pattern, placeholder, line)
    return line.strip()


def fits(shown: list[str], printed: list[str]) -> bool:
    """The same lines, `…` standing for any number of them."""
    pattern = "".join(
        "(.*\n)*?" if line.strip() == LEFT_OUT else re.escape(own(line)) + "\n" for line in shown
    )
    return (
        re.fullmatch(pattern, "".join(f"{own(line)}\n" for line in printed if line.strip()))
        is not None
    )


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that `aimlab dev` says to use."""
    state = tmp_path / "state"
    dev = subprocess.Popen(
        [AIMLAB, "dev", "--state", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert dev.stdout is not None
        lines = []
        for line in dev.stdout:
            lines.append(line)
            if "Ctrl-C stops everything" in line:
                break
        export = next((line for line in lines if line.strip().startswith("export ")), None)
        assert export is not None, "".join(lines)
        named = dict(part.split("=", 1) for part in export.split()[1:])
        named["PATH"] = named["PATH"].replace("$PATH", os.environ["PATH"])
        yield os.environ | named | {"HOME": str(tmp_path), "PWD": str(state)}
    finally:
        dev.send_signal(signal.SIGINT)
        try:
            dev.wait(30)
        finally:
            dev.kill()


def test_the_page_shows_what_its_commands_print(shell: dict[str, str], tmp_path: Path) -> None:
    watching: list[tuple[Typed, subprocess.Popen[str], Path]] = []
    for number, typed in enumerate(session(PAGE.read_text())):
        if typed.command.endswith(" -w"):
            output = tmp_path / f"{number}.txt"
            with output.open("w") as to:
                process = subprocess.Popen(
                    typed.command.split(), env=shell, cwd=shell["PWD"], stdout=to, text=True
                )
            watching.append((typed, process, output))
            continue
        done = subprocess.run(
            ["/bin/bash", "-c", typed.command],
            env=shell,
            cwd=shell["PWD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        printed = f"{done.stdout}{done.stderr}"
        assert fits(typed.shown, printed.splitlines()), f"$ {typed.command}\n{printed}"
    assert watching
    for typed, process, output in watching:
        process.kill()
        process.wait()
        assert fits(
            [line for shown in typed.shown for line in (LEFT_OUT, shown)] + [LEFT_OUT],
            output.read_text().splitlines(),
        ), output.read_text()


@pytest.mark.parametrize(
    ("shown", "printed", "equal"),
    [
        pytest.param(["a   5s"], ["a  12s"], True, id="ages"),
        pytest.param(["a", "…", "d"], ["a", "b", "c", "d"], True, id="left-out"),
        pytest.param(["a"], ["a", "b"], False, id="a-line-more"),
        pytest.param(["a", "…", "d"], ["a", "b"], False, id="a-line-less"),
    ],
)
def test_when_lines_are_equal(shown: list[str], printed: list[str], *, equal: bool) -> None:
    assert fits(shown, printed) is equal
