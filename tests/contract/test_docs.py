"""What the documents name exists."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aimcontroller.settings import ServiceSettings
from aimctl.app import app
from aimlab.cli.__main__ import app as lab
from aimschema import reasons
from aimschema.environment import COMPONENT_VARIABLES
from aimschema.states import ServiceState, TemplateState

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/*/README.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


NAMES = frozenset(
    f"/{path.relative_to(ROOT)}"
    for start in ROOT.glob("[!.]*")
    for path in (start, *(start.rglob("*") if start.is_dir() else ()))
)
"""All files and folders; those of .github and .venv are not named by their end."""
PATH = re.compile(r"(?<![\w/.:-])((?:[\w-]+/)+[\w.-]+\.(?:py|sh|md|ya?ml|json|jsonl|txt))\b")
MODULE = re.compile(r"`(\w+\.py)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """By path from the root or the page, or by the end of the path."""
    if page.name == "CHANGELOG.md":
        return
    text = page.read_text()
    assert [
        name
        for name in {*PATH.findall(text), *MODULE.findall(text)}
        if not (page.parent / name).exists()
        and not any(file.endswith(f"/{name}") for file in NAMES)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_and_commands_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None
    }
    commands |= {group.name for group in app.registered_groups if group.name is not None}
    assert set(re.findall(r"`make ([a-z-]+)`|^    make ([a-z-]+)", text, re.MULTILINE)) <= {
        (t, "") for t in targets
    } | {("", t) for t in targets}
    in_the_past = page.name == "CHANGELOG.md" or "adr" in page.parts
    lab_commands = {each.callback.__name__ for each in lab.registered_commands if each.callback}
    assert set(re.findall(r"aimlab ([a-z]+)`", text)) <= lab_commands
    moved = lab_commands if in_the_past else set[str]()
    assert set(re.findall(r"aimctl ([a-z]+)`", text)) <= commands | moved


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in ("doctor", "nats", "up", "dead"))


def test_the_api_page_names_every_reason_that_services_report() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    summary = {
        reasons.NO_FAILURE,
        reasons.READY,
        reasons.PROGRESSING,
        reasons.FAILURE,
        reasons.STARTING,
        reasons.RUNNING,
        reasons.PENDING,
    }
    summary |= {state.value for state in (*TemplateState, *ServiceState)}
    services = {
        reasons.DISCOVERY,
        reasons.CACHER,
        reasons.DEPLOYER,
        reasons.ROUTER,
        reasons.STATUSWRITER,
        reasons.WATCHER,
    }
    constants = {
        value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)
    }
    assert {
        word for word in constants - summary - services if not re.search(rf"\b{word}\b", page)
    } == set()


def test_the_readme_names_the_settings_of_every_service() -> None:
    page = (ROOT / "README.md").read_text()
    for name, field in ServiceSettings.model_fields.items():
        assert f"`{field.validation_alias or 'AIM_' + name.upper()}`" in page, name
    assert all(name.startswith("AIM_") for name in COMPONENT_VARIABLES)


def test_the_index_of_the_docs_names_every_page() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text()
    folders = ("tutorial", "how-to", "reference", "explanation")
    pages = {str(page.relative_to(docs)) for each in folders for page in (docs / each).glob("*.md")}
    assert {page for page in pages if f"]({page})" not in index} == set()
