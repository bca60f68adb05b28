"""docs/reference/field-faults.md and docs/explanation/security.md name tests that exist."""

import re
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
