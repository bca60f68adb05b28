"""What is said of the permissions on NATS, in the READMEs and in docs/nats.md, is what the server is told."""

from pathlib import Path

import pytest

from aimctl.nats_users import USERS, sentence, table
from aimctl.services import SERVICES

ROOT = Path(__file__).parents[2]


def test_every_service_is_a_user() -> None:
    assert set(SERVICES) < set(USERS)


@pytest.mark.parametrize("service", SERVICES)
def test_the_readme_says_what_a_service_may(service: str) -> None:
    page = " ".join((ROOT / "services" / service / "README.md").read_text().split())
    assert sentence(service) in page


def test_the_page_says_what_every_user_may() -> None:
    assert table() in (ROOT / "docs" / "nats.md").read_text()
