"""docs/reference/describe.md shows eight of the fault cases, in a form that does not depend on the
run."""

import re

import pytest

from aim_testing.fault_catalogue.described import DESCRIBED, PAGE, command, excerpt
from aim_testing.fault_catalogue.run import TOGETHER

CONDITION = """    Last Transition Time:  2026-01-02T03:04:{second:02}Z
    Reason:                {type}
    Type:                  {type}
"""


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_page_has_each_case_with_its_reasons(name: str) -> None:
    [case] = [case for case in TOGETHER if case.name == name]
    _, _, section = PAGE.read_text().partition(f"`{command(name)}`")
    shown, _, _ = section.partition("\n## ")
    assert [
        expected.reason
        for expected in case.expected
        if not re.search(rf"\b{expected.reason}\b", shown)
    ] == []


def test_the_page_shows_eight() -> None:
    assert len(DESCRIBED) == PAGE.read_text().count("\n## ") == 8


def described(*types: str) -> str:
    conditions = "".join(
        CONDITION.format(type=type_, second=second) for second, type_ in enumerate(types)
    )
    return f"Status:\n  Conditions:\n{conditions}  Observed Generation:  1\nEvents:  <none>\n"


def test_what_differs_from_run_to_run_is_not_in_it() -> None:
    one = excerpt(described("Ready", "Progressing", "Failure", "RoutingReady", "Resolved"))
    assert one == excerpt(described("Ready", "Progressing", "Failure", "Resolved", "RoutingReady"))
    assert re.findall(r"Type: +(\w+)", one) == [
        "Ready",
        "Progressing",
        "Failure",
        "Resolved",
        "RoutingReady",
    ]
    assert "Last Transition Time:  (time)" in one
    assert "Observed Generation" not in one, "it is of the status, not of a condition"
