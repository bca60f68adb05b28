"""The permissions on NATS in the READMEs and in docs/how-to/nats.md are those of the server's
configuration."""

import os
from pathlib import Path

import msgspec
import pytest

from aim_watcher.nats_secrets import permissions
from aimctl.component_registry import SERVICES
from aimctl.nats.users import PERMISSIONS, USERS
from tools.permission_docs import nats_sentence, nats_table

ROOT = Path(__file__).parents[2]


def test_every_service_is_a_user() -> None:
    assert set(SERVICES) < set(USERS)


def test_the_job_of_the_chart_knows_all_nats_permissions() -> None:
    """The image of the watcher has them as a file: it holds no other service. AIM_WRITE_GOLDEN=1
    writes it."""
    file = ROOT / "services" / "watcher" / "aim_watcher" / "nats_users.json"
    if os.environ.get("AIM_WRITE_GOLDEN"):
        file.write_bytes(msgspec.json.format(msgspec.json.encode(PERMISSIONS), indent=1) + b"\n")
    assert permissions() == PERMISSIONS
    assert list(permissions()) == list(USERS)


@pytest.mark.parametrize("service", SERVICES)
def test_the_readme_has_the_permissions_of_a_service(service: str) -> None:
    page = " ".join((ROOT / "services" / service / "README.md").read_text().split())
    assert nats_sentence(service) in page


def test_the_page_has_the_permissions_of_every_user() -> None:
    assert nats_table() in (ROOT / "docs" / "how-to" / "nats.md").read_text()
