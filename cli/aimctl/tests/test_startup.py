"""Help and shell completion are fast because they import none of what commands need to run."""

import pytest

from aim_testing.imports import Run, Script, runs_of
from aim_watcher.nats_secrets import permissions
from aimctl.app import app, cache, dead, history, nats
from aimctl.nats import ROTATABLE
from aimctl.nats.users import CONSOLE, USERS

COMMANDS = [
    *((command.callback.__name__,) for command in app.registered_commands if command.callback),
    *(("dead", str(command.name)) for command in dead.registered_commands),
    *(("nats", str(command.name)) for command in nats.registered_commands),
    *(("history", str(command.name)) for command in history.registered_commands),
    *(("cache", str(command.name)) for command in cache.registered_commands),
    ("cache",),
    ("dead",),
    ("nats",),
    ("history",),
]
CLIENTS = {
    "aimbus",
    "aimcontroller",
    "aimkube",
    "aiohttp",
    "cryptography",
    "jsonschema",
    "kubernetes",
    "nats",
    "opentelemetry",
    "prometheus_client",
    "structlog",
    "yaml",
}
"""pydantic is missing here: typer parses the arguments of a command with it."""
HELP = [("aimctl", *command, "--help") for command in ((), *COMMANDS)]
WRONG = [
    ("aimctl", *args)
    for args in (
        (),
        ("nonsense",),
        ("explain",),
        ("cache", "evict"),
        ("nats", "init", "--rotate", "x"),
    )
]
COMPLETED = {
    "aimctl ex": {"explain"},
    "aimctl dead r": {"retry"},
    "aimctl explain --out": {"--output"},
    "aimctl explain -o j": {"json"},
    "aimctl explain m": {"mc/"},
    "aimctl get aims": {"aimst", "aimsvc"},
    "kubectl-aim wa": {"wait"},
}
"""What completes a command, one of a group, an option, a value, a kind, one of `get`, and a command
of the plugin."""
IMPORTED = ["dead_letters", "explain", "get", "timeline", "top", "wait"]
LAB_HELP = ("aimlab", "--help")


def completes(line: str) -> Script:
    name, *args = line.split()
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    env = {variable: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(args))}
    return Script(MAIN, [name], env)


MAIN = "from aimctl.__main__ import main\nmain()"
SCRIPTS = {
    **{" ".join(argv): Script(MAIN, argv) for argv in (*HELP, *WRONG)},
    **{line: completes(line) for line in COMPLETED},
    **{command: Script(f"import aimctl.commands.{command}") for command in IMPORTED},
    " ".join(LAB_HELP): Script("from aimlab.cli.__main__ import main\nmain()", LAB_HELP),
}


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """Each after `aimctl --help` in the same interpreter, which the tests show to import none."""
    return dict(
        zip(SCRIPTS, runs_of(SCRIPTS["aimctl --help"], list(SCRIPTS.values())), strict=True)
    )


@pytest.mark.parametrize("argv", HELP, ids="-".join)
def test_help_imports_no_client(runs: dict[str, Run], argv: tuple[str, ...]) -> None:
    run = runs[" ".join(argv)]
    assert (run.code, "Usage: aimctl" in run.shown) == (0, True), run.shown
    assert run.modules & CLIENTS == set()


@pytest.mark.parametrize("argv", WRONG, ids=" ".join)
def test_wrong_usage_imports_no_client(runs: dict[str, Run], argv: tuple[str, ...]) -> None:
    run = runs[" ".join(argv)]
    assert (run.code, "Usage:" in run.shown) == (2, True), run.shown
    assert run.modules & CLIENTS == set()


@pytest.mark.parametrize("line", COMPLETED)
def test_completion_imports_no_client(runs: dict[str, Run], line: str) -> None:
    assert set(runs[line].shown.split()) == COMPLETED[line]
    assert runs[line].modules & CLIENTS == set()


def test_the_list_of_commands_needs_no_pydantic(runs: dict[str, Run]) -> None:
    assert "pydantic" not in runs["aimctl --help"].modules


@pytest.mark.parametrize("command", IMPORTED)
def test_a_command_of_the_bus_imports_only_what_it_uses(runs: dict[str, Run], command: str) -> None:
    assert f"aimctl.commands.{command}" in runs[command].modules
    unused = {"aimkube", "jsonschema", "kubernetes", "prometheus_client", "pydantic"}
    assert runs[command].modules & unused == set()


def test_help_of_the_lab_imports_no_client(runs: dict[str, Run]) -> None:
    run = runs["aimlab --help"]
    assert run.code == 0
    assert run.modules & CLIENTS == set()


def test_the_keys_that_help_names_are_those_of_all_users() -> None:
    assert (*permissions(), "server", "ca") == ROTATABLE
    assert CONSOLE in ROTATABLE
    assert set(USERS) < set(ROTATABLE)
