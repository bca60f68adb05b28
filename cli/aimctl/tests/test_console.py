"""All output is text in our own styles."""

import datetime
import io
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from aimctl.commands.dead_letters import show
from aimctl.dead_letters import ListedDeadLetter
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimlab.cli.quickstart_progress import QuickstartState, table
from aimschema.messages import DeadLetter

HOSTILE = [
    pytest.param("[bold]loud[/bold] [link=http://evil]here[/link]", id="markup"),
    pytest.param("[/] [/nothing", id="broken-markup"),
    pytest.param(":smile: :skull:", id="emoji"),
    pytest.param("\x1b[2J\x1b]0;owned\x07\x1b[31mred", id="escapes"),
    pytest.param("\x9b2Jc1", id="one-byte-escape"),
    pytest.param("safe\rgone", id="carriage-return"),
    pytest.param("a\u202eb\u2066c", id="turned-direction"),
    pytest.param("\x08\x08\x08x\x00y\x7f", id="backspaces"),
]
OUR_STYLES = re.compile(r"\x1b\[[0-9;]*m")


def console(*, terminal: bool = False) -> PlainConsole:
    return PlainConsole(io.StringIO(), 200, terminal=terminal)


def shown(on: PlainConsole) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def as_shown(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_string_is_shown_as_it_is_without_what_does_not_print(text: str) -> None:
    on = console()
    on.print(text, soft_wrap=True)
    assert shown(on).replace(" ", "") == as_shown(text).replace(" ", "") + "\n"


@given(st.text())
def test_nothing_but_printable_text_and_line_ends_is_shown(text: str) -> None:
    on = console()
    grid = Table("A")
    grid.add_row(Text(text))
    for what in (text, Text(text, style="bold"), grid):
        on.print(what)
    on.rule(Text(text))
    assert all(line.isprintable() for line in shown(on).split("\n"))


@given(st.text())
def test_a_terminal_gets_our_styles_besides(text: str) -> None:
    on = console(terminal=True)
    on.print(Text(text, style="bold red"))
    assert all(line.isprintable() for line in OUR_STYLES.sub("", shown(on)).split("\n"))


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", get_args(Form))
def test_dead_letters_are_shown_literally(text: str, form: Form) -> None:
    dead_letter = DeadLetter(
        service="cacher", kind="ModelCache", namespace="ml", name="c", error=text, attempts=5
    )
    on = console()
    show(
        [
            ListedDeadLetter(
                dead_letter,
                "aim.dead.cacher.ModelCache.ml.c",
                1,
                datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
            )
        ],
        on,
        form,
    )
    assert all(line.isprintable() for line in shown(on).split("\n"))
    if text.isprintable():
        assert text in shown(on)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_watched_is_shown_literally(text: str) -> None:
    ready = {"type": "Ready", "status": "False", "reason": text, "message": text}
    body = {
        "kind": "AIMService",
        "metadata": {"namespace": "ns", "name": "s"},
        "status": {"status": text, "conditions": [ready]},
    }
    on = console()
    on.print(table(QuickstartState({("AIMService", "s"): body})))
    assert all(line.isprintable() for line in shown(on).split("\n"))
    if text.isprintable():
        assert text in shown(on)
