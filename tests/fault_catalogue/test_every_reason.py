"""Each reason of the module has a test that causes it by a real fault or a real run."""

import re
from pathlib import Path

import pytest
import yaml

from aim_testing.fault_catalogue.run import CASES
from aimschema import reasons

TESTS = Path(__file__).parents[1]
TYPES = {
    type_
    for kinds in reasons.STATUS_OWNERSHIP.values()
    for types, _ in kinds.values()
    for type_ in types
} | set(reasons.DERIVED)
SERVICES = {
    reasons.DISCOVERY,
    reasons.CACHER,
    reasons.DEPLOYER,
    reasons.ROUTER,
    reasons.STATUSWRITER,
    reasons.WATCHER,
}
STATES = {reasons.FAILED_STATE, reasons.AVAILABLE_STATE}
REASONS = (
    {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    - SERVICES
    - STATES
)
ONLY_TYPES = TYPES - {reasons.CACHE_WARM, reasons.RESOLVED, reasons.RUNTIME_READY}
"""CacheWarm, Resolved and RuntimeReady are reasons as well."""
PASSING = {
    reasons.PENDING: ("before any service has reported; test_summary of the statuswriter has it"),
    reasons.STARTING: (
        "before all services have reported; test_summary of the statuswriter has it"
    ),
    reasons.VERIFYING: (
        "between the end of a download and the mark on its volume; test_plan of the cacher has it"
    ),
}
"""These change too fast for a test to observe them reliably."""


def expected_here() -> set[str]:
    """Each is waited for by tests/fault_catalogue/test_faults.py."""
    return {
        expected.reason
        for case in CASES
        for expected in (*case.expected, *([case.healed] if case.healed is not None else []))
    }


def expected_of_sources() -> set[str]:
    """Each is waited for by tests/scenario/test_sources.py."""
    groups = yaml.safe_load((TESTS / "scenario" / "source_cases.yaml").read_text())
    return {case["sees"][0] for cases in groups.values() for case in cases}


def expected_of_images() -> set[str]:
    """Each is waited for by tests/scenario/test_catalogue.py, as a condition or an Event."""
    text = (TESTS / "scenario" / "test_catalogue.py").read_text()
    return set(
        re.findall(r'place\.(?:inspected|discovered|warned)\((?:\w+, )?"[^"]+", "(\w+)"', text)
    )


@pytest.mark.parametrize("reason", sorted(REASONS - ONLY_TYPES - PASSING.keys()))
def test_it_is_brought_about(reason: str) -> None:
    assert reason in expected_here() | expected_of_sources() | expected_of_images()


@pytest.mark.parametrize("reason", sorted(PASSING))
def test_what_cannot_be_waited_for_is_in_a_table_of_its_planner(reason: str) -> None:
    tables = "".join(file.read_text() for file in TESTS.parent.glob("services/*/tests/test_*.py"))
    assert re.search(rf"\b{reason}\b", tables)
