"""docs/field-faults.md names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "field-faults.md").read_text()
ROWS = re.findall(r"^\| (\w+\d+) \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
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


def test_the_page_has_all_its_rows() -> None:
    assert len(ROWS) == len(re.findall(r"^\| [FGSU]\d+ ", PAGE, re.MULTILINE)) > 35
