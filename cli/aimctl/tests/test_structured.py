"""Exit codes of wrong usage, durations, documents, and the script that the shell is given."""

import asyncio
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.testing import CliRunner

from aimctl.app import app
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.structured import print_data, print_line
from aimctl.parsing import duration_s
from aimlab.testing.commands import command


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(
            ("doctor", "-o", "xml"), "'xml' is not one of 'text', 'json', 'yaml'", id="no-such-form"
        ),
        pytest.param(("doctor", "--kubeconfig", "/nowhere"), "does not exist", id="no-such-file"),
        pytest.param(("get",), "name a namespace with -n, or -A for all", id="get-where"),
        pytest.param(
            ("get", "-A", "-n", "team"),
            "name a namespace with -n, or -A for all",
            id="get-where-twice",
        ),
        pytest.param(("get", "aimns", "-A"), "'aimns' is none of AIMService", id="get-what"),
        pytest.param(
            ("wait", "aimsvc/x", "-n", "team", "--for", "done"),
            "is none of ready, deleted",
            id="wait-for-what",
        ),
        pytest.param(
            ("wait", "aimsvc/x", "-n", "team", "--timeout", "soon"),
            "'soon' is not a duration",
            id="wait-how-long",
        ),
        pytest.param(("logs", "aimsvc/x"), "AIMService is namespaced", id="logs-where"),
        pytest.param(("retry", "chat", "-n", "team"), "is not KIND/NAME", id="retry-what"),
        pytest.param(("nonsense",), "No such command", id="no-such-command"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_error(args: tuple[str, ...], message: str) -> None:
    ran = CliRunner().invoke(app, args, env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert ran.exit_code == 2, ran.output
    assert message in " ".join(ran.output.split())


NEED_A_BUS = (
    ("get", "-A"),
    ("wait", "aimsvc/x", "-n", "t"),
    ("retry", "mc/x", "-n", "t"),
    ("logs", "mc/x", "-n", "t"),
    ("top",),
)


async def test_without_a_bus_each_command_exits_with_1(tmp_path: Path) -> None:
    env = {"AIM_NATS_URL": "nats://127.0.0.1:1", "HOME": str(tmp_path)}
    outputs = await asyncio.gather(*(command(env, "aimctl", *args, code=1) for args in NEED_A_BUS))
    assert ["no NATS server answers at nats://127.0.0.1:1" in each for each in outputs] == [
        True
    ] * len(NEED_A_BUS)


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172_800), ("7", 7), ("0s", 0)],
)
def test_durations(text: str, expected_s: float) -> None:
    assert duration_s(text) == expected_s


@pytest.mark.parametrize("text", ["", "soon", "5 m", "-5s", "1.5h", "m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as"):
        duration_s(text)


HOSTILE = {"words": "[red]x[/] \x1b[2J é\n- y: z", "none": None, "many": list(range(80))}


@pytest.mark.parametrize("form", [form for form in get_args(Form) if form != "text"])
def test_a_document_comes_back_as_it_was_and_is_ascii(form: Form) -> None:
    out = StringIO()
    print_data(PlainConsole(file=out, width=2000), HOSTILE, form)
    assert yaml.safe_load(out.getvalue()) == HOSTILE
    assert out.getvalue().isascii()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("form", [form for form in get_args(Form) if form != "text"])
def test_consecutive_documents_are_separated(form: Form) -> None:
    out = StringIO()
    for number in (1, 2):
        print_line(PlainConsole(file=out, width=2000), {"n": number}, form)
    parts = out.getvalue().splitlines() if form == "json" else out.getvalue().split("---\n")[1:]
    assert [yaml.safe_load(part) for part in parts] == [{"n": 1}, {"n": 2}]


def test_bash_gets_a_script_that_calls_aimctl() -> None:
    aimctl = Path(sys.executable).with_name("aimctl")
    ran = subprocess.run(
        ["bash", "-c", f"{aimctl} --show-completion; true"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "complete -o default -F _aimctl_completion aimctl" in ran.stdout
    script = (
        'source <("$0" --show-completion); COMP_WORDS=(aimctl wai) COMP_CWORD=1; _aimctl_completion'
        ' "$0"; echo "${COMPREPLY[@]}"'
    )
    proposed = subprocess.run(
        ["bash", "-c", script, str(aimctl)], capture_output=True, text=True, check=True
    )
    assert proposed.stdout.split() == ["wait"]
