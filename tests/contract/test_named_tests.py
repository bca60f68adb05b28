"""Names of tests are short, and pages and settings name tests that exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / "docs" / name).read_text()
    for name in ("reference/field-faults.md", "explanation/security.md")
}
ROWS = [
    row
    for page in PAGES.values()
    for row in re.findall(r"^\| (\w+\d+) \|.*\| ([^|]*) \|$", page, re.MULTILINE)
]
ONLY_DOCUMENTED = {"U3"}


def names_a_test(reference: str) -> bool:
    path, _, name = reference.partition("::")
    file = ROOT / path
    return file.is_file() and (not name or f"def {name}(" in file.read_text())


@pytest.mark.parametrize(("row", "tests"), ROWS, ids=[row for row, _ in ROWS])
def test_each_row_names_tests_that_exist(row: str, tests: str) -> None:
    named = re.findall(r"`([^`]+)`", tests)
    assert bool(named) != (row in ONLY_DOCUMENTED)
    assert [each for each in named if not names_a_test(each)] == []


@pytest.mark.parametrize(
    ("page", "least"), [("reference/field-faults.md", 36), ("explanation/security.md", 17)]
)
def test_a_page_has_all_its_rows(page: str, least: int) -> None:
    rows = re.findall(r"^\| ([A-Z]\d+) ", PAGES[page], re.MULTILINE)
    assert len(rows) >= least
    assert set(rows) <= {row for row, _ in ROWS}


MOST_CHARACTERS = 60


def files_with_tests() -> list[Path]:
    return [
        file
        for folder in ("tests", "libs", "services", "jobs", "lab", "cli")
        for file in sorted((ROOT / folder).rglob("test_*.py"))
    ]


def names_of_tests(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from [node.name] if node.name.startswith("test_") else []


def test_the_name_of_a_test_is_a_short_sentence() -> None:
    named = [
        (str(file.relative_to(ROOT)), name)
        for file in files_with_tests()
        for name in names_of_tests(file)
    ]
    assert len(named) > 1500
    assert [each for each in named if len(each[1]) > MOST_CHARACTERS] == []


def test_the_files_that_start_first_exist() -> None:
    text = (ROOT / "conftest.py").read_text()
    first = re.findall(r'^    "(.*/test_\w+\.py)",$', text, re.MULTILINE)
    assert len(first) > 20
    assert [file for file in first if not (ROOT / file).is_file()] == []
