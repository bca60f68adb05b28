"""docs/adr/README.md is the index of the decision records; each has a status and a date."""

import re
from pathlib import Path

import pytest

ADR = Path(__file__).parents[2] / "docs" / "adr"
RECORDS = sorted(ADR.glob("0*.md"))
HEAD = re.compile(
    r"# (\d+)\. (.+)\n\nStatus: (accepted|superseded by \d+) · Date: (\d{4}-\d\d-\d\d)\n"
)
INDEX = (ADR / "README.md").read_text()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_record_has_a_row_in_the_index(record: Path) -> None:
    head = HEAD.match(record.read_text())
    assert head is not None, f"{record.name}: title, status and date are required"
    number, title, status, date = head.groups()
    assert record.name.startswith(f"{int(number):04}-")
    assert f"| {number} | [{title}]({record.name}) | {status} | {date} |\n" in INDEX


def test_the_index_has_a_row_for_each_record_only() -> None:
    assert len(re.findall(r"^\| \d+ \|", INDEX, re.MULTILINE)) == len(RECORDS)


def test_the_index_explains_each_missing_number() -> None:
    numbers = {int(record.name[:4]) for record in RECORDS}
    missing = set(range(1, max(numbers))) - numbers
    (explained,) = re.findall(r"^Numbers? (.+?) (?:was|were) never used", INDEX, re.MULTILINE)
    assert {int(number) for number in re.findall(r"\d+", explained)} == missing
