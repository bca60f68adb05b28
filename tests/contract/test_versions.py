"""The file VERSION has the version of everything that is released together."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
PROJECTS = sorted(
    path
    for folder in ("libs", "services", "jobs", "cli", "lab")
    for path in (ROOT / folder).glob("*/pyproject.toml")
)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_a_distribution_takes_its_version_from_the_file(project: Path) -> None:
    settings = tomllib.loads(project.read_text())
    assert "version" in settings["project"]["dynamic"]
    path = settings["tool"]["hatch"]["version"]["path"]
    assert (project.parent / path).resolve() == ROOT / "VERSION"


def test_the_chart_has_the_version_of_the_file() -> None:
    chart = yaml.safe_load((ROOT / "deploy" / "charts" / "aim" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_newest_section_of_the_changelog_has_the_version() -> None:
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == VERSION
    assert len(set(sections)) == len(sections)
