"""The same examples in every run, so that a change is what makes a test fail.
`HYPOTHESIS_PROFILE=search` looks for new ones."""

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, print_blob=True)
settings.register_profile("search", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a command that a test calls in this process does to logging ends with the test."""
    yield
    structlog.reset_defaults()
