"""Help and shell completion are fast because they import none of what commands need to run."""

import json
import subprocess
import sys

import pytest

from aim_watcher.nats_secrets import permissions
from aimctl.app import app, dead, nats
from aimctl.nats import ROTATABLE
from aimctl.nats.users import CONSOLE, USERS

COMMANDS = [
    *((command.callback.__name__,) for command in app.registered_commands if command.callback),
    *(("dead", str(command.name)) for command in dead.registered_commands),
    *(("nats", str(command.name)) for command in nats.registered_commands),
    ("dead",),
    ("nats",),
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
UNUSED_BY_TEXT = {"aimkube", "jsonschema", "kubernetes", "prometheus_client", "pydantic", "yaml"}
RUN = """
import json, sys
from {module} import main
sys.argv = json.loads(sys.argv[1])
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]))
"""


def run(
    *args: str, module: str = "aimctl.__main__", env: dict[str, str] | None = None
) -> tuple[int, str, set[str]]:
    """Exit code, output, and the modules that were imported by then."""
    command = [sys.executable, "-c", RUN.format(module=module), json.dumps(args)]
    ran = subprocess.run(
        command, env=env or {}, capture_output=True, text=True, check=False, timeout=60
    )
    *shown, last = ran.stdout.splitlines()
    code, modules = json.loads(last)
    return code, "\n".join(shown) + ran.stderr, set(modules)


@pytest.mark.parametrize("command", [(), *COMMANDS], ids="-".join)
def test_help_imports_no_client(command: tuple[str, ...]) -> None:
    code, shown, modules = run("aimctl", *command, "--help")
    assert (code, "Usage: aimctl" in shown) == (0, True), shown
    assert modules & CLIENTS == set()


@pytest.mark.parametrize(
    "args", [(), ("nonsense",), ("explain",), ("nats", "init", "--rotate", "x")], ids=" ".join
)
def test_wrong_usage_imports_no_client(args: tuple[str, ...]) -> None:
    code, shown, modules = run("aimctl", *args)
    assert (code, "Usage:" in shown) == (2, True), shown
    assert modules & CLIENTS == set()


@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        pytest.param("aimctl ex", {"explain"}, id="a-command"),
        pytest.param("aimctl dead r", {"retry"}, id="a-command-of-a-group"),
        pytest.param("aimctl explain --out", {"--output"}, id="an-option"),
        pytest.param("aimctl explain -o j", {"json"}, id="a-value"),
        pytest.param("aimctl explain m", {"mc/"}, id="a-kind"),
        pytest.param("aimctl get aims", {"aimst", "aimsvc"}, id="a-kind-of-get"),
        pytest.param("kubectl-aim wa", {"wait"}, id="the-plugin"),
    ],
)
def test_completion_imports_no_client(line: str, proposed: set[str]) -> None:
    name, *args = line.split()
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    env = {variable: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(args))}
    _, shown, modules = run(name, env=env)
    assert set(shown.split()) == proposed
    assert modules & CLIENTS == set()


def test_the_list_of_commands_needs_no_pydantic() -> None:
    _, _, modules = run("aimctl", "--help")
    assert "pydantic" not in modules


@pytest.mark.parametrize("command", ["dead_letters", "explain", "get", "timeline", "top", "wait"])
def test_a_command_of_the_bus_imports_only_what_it_uses(command: str) -> None:
    script = f"import json, sys, aimctl.commands.{command}; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(json.loads(ran.stdout))
    assert (
        modules & {"aimkube", "jsonschema", "kubernetes", "prometheus_client", "pydantic"} == set()
    )


def test_help_of_the_lab_imports_no_client() -> None:
    code, _, modules = run("aimlab", "--help", module="aimlab.cli.__main__")
    assert code == 0
    assert modules & CLIENTS == set()


def test_the_keys_that_help_names_are_those_of_all_users() -> None:
    assert (*permissions(), "server", "ca") == ROTATABLE
    assert CONSOLE in ROTATABLE
    assert set(USERS) < set(ROTATABLE)
