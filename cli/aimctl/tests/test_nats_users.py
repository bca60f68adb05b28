"""The server's configuration from the permissions: as recorded, and taken by a real nats-server."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from aim_watcher.nats_secrets import OPERATOR
from aimbus.accounts import auth_conf, new_seed, public_key
from aimctl.nats.users import CONSOLE, PERMISSIONS, USERS
from aimschema import subjects
from aimschema.reasons import STATUSWRITER, WATCHER

GOLDEN = Path(__file__).parent / "golden" / "auth.conf"
KEYS = {user: f"U{place:055d}" for place, user in enumerate(USERS)}


def test_the_configuration_is_as_recorded() -> None:
    made = auth_conf(KEYS, PERMISSIONS)
    if os.environ.get("AIM_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text()


async def test_the_server_takes_it(tmp_path: Path) -> None:
    config = tmp_path / "auth.conf"
    config.write_text(auth_conf({user: public_key(new_seed()) for user in USERS}, PERMISSIONS))
    binary = str(Path(sys.executable).with_name("nats-server"))
    process = await asyncio.create_subprocess_exec(
        binary, "-t", "-c", str(config), stderr=asyncio.subprocess.PIPE
    )
    _, output = await process.communicate()
    assert (process.returncode, "is valid" in output.decode()) == (0, True), output


def test_no_seed_is_in_it() -> None:
    seeds = {user: new_seed() for user in USERS}
    made = auth_conf({user: public_key(seed) for user, seed in seeds.items()}, PERMISSIONS)
    assert not any(seed in made for seed in seeds.values())


@pytest.mark.parametrize(
    "seed",
    ["", "SU", "U" * 56, new_seed()[:-1] + "?"],
    ids=["nothing", "too short", "not a seed", "a message that is no dead letter"],
)
def test_a_bad_seed_is_an_error(seed: str) -> None:
    with pytest.raises(ValueError, match="not an NKey seed"):
        public_key(seed)


@pytest.mark.parametrize("user", [user for user in USERS if user not in {CONSOLE, OPERATOR}])
def test_a_service_publishes_nothing_in_the_name_of_another(user: str) -> None:
    subjects_allowed = [
        subject for subject in PERMISSIONS[user].publish if subject.startswith("aim")
    ]
    about = (subjects.OBJECT, subjects.SYNCED, subjects.HISTORY, subjects.LIVE_PROGRESS)
    assert [
        s for s in subjects_allowed if user not in s.split(".") and not s.startswith(about)
    ] == []
    assert user == WATCHER or not any(
        s.startswith((subjects.OBJECT, subjects.SYNCED, subjects.HISTORY)) for s in subjects_allowed
    )


def test_the_statuswriter_reports_nothing() -> None:
    assert not any(
        subject.startswith(subjects.REPORT) for subject in PERMISSIONS[STATUSWRITER].publish
    )
