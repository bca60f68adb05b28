"""`aim-watcher nats-init` creates the missing Secrets that pods mount, and changes no existing
one."""

import base64
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aim_watcher.nats_secrets import (
    AUTH,
    AUTHORITY,
    CA,
    OPERATOR,
    SEED,
    SERVER,
    desired_secrets,
    manifest,
    names,
    of_user,
    permissions,
    reload_command,
)
from aimbus.accounts import new_seed, public_key
from aimkube import Cluster
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.testing import commands
from aimschema.resources import NAMESPACE as NAMESPACES
from aimschema.resources import SECRET

NAMESPACE = "infra"
FOR_PEOPLE = {of_user(OPERATOR), AUTHORITY}
MOUNTED = set(names()) - FOR_PEOPLE


@dataclass(frozen=True)
class Installation:
    cluster: Cluster
    kubeconfig: Path

    async def init(self) -> tuple[int | None, str]:
        """Exit code and log of the process, as the Job runs it."""
        env = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(self.kubeconfig),
            "AIM_NAMESPACE": NAMESPACE,
        }
        return await commands.run(env, "aim-watcher", "nats-init")

    async def secrets(self) -> dict[str, dict[str, Any]]:
        return {
            body["metadata"]["name"]: body
            for body in (await self.cluster.list(SECRET, NAMESPACE)).items
        }

    async def add(self, *secrets: tuple[str, dict[str, bytes]]) -> None:
        for name, data in secrets:
            await self.cluster.create(manifest(name, NAMESPACE, data), resource=SECRET)


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with ApiServer() as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        cluster = await Cluster.connect(str(tmp_path / "kubeconfig"))
        try:
            await cluster.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            )
            yield Installation(cluster, tmp_path / "kubeconfig")
        finally:
            await cluster.close()


def seed_of(secret: dict[str, Any]) -> str:
    return base64.b64decode(secret["data"][SEED]).decode()


async def test_the_secrets_that_pods_mount_are_created_once(installation: Installation) -> None:
    code, log = await installation.init()
    assert code == 0, log
    first = await installation.secrets()
    assert set(first) == MOUNTED
    assert not any(seed_of(secret) in log for secret in first.values() if SEED in secret["data"])
    assert (await installation.init())[0] == 0
    assert await installation.secrets() == first


async def test_keys_that_only_people_use_stay_out_of_the_cluster(
    installation: Installation,
) -> None:
    """It creates neither the key of the authority nor a key that may publish everything. A user
    without a key is no user of the server either."""
    await installation.init()
    created = await installation.secrets()
    keys = {key for secret in created.values() for key in secret["data"]}
    assert "ca.key" not in keys
    config = base64.b64decode(created[SERVER]["data"][AUTH]).decode()
    assert config.count("nkey:") == len(permissions()) - 1
    assert f"# {OPERATOR}\n" not in config


async def test_a_secret_created_by_hand_stays_unchanged(installation: Installation) -> None:
    await installation.add(*desired_secrets({}, NAMESPACE, (), datetime.now(UTC)).items())
    before = await installation.secrets()
    assert set(before) == MOUNTED | FOR_PEOPLE
    assert (await installation.init())[0] == 0
    assert await installation.secrets() == before


@pytest.mark.parametrize(
    "missing",
    [(AUTHORITY,), (of_user(OPERATOR),), (AUTHORITY, of_user(OPERATOR))],
    ids=" and ".join,
)
async def test_keys_that_only_people_use_may_be_missing(
    installation: Installation, missing: tuple[str, ...]
) -> None:
    """The key is stored outside the cluster: no pod waits for it."""
    first = desired_secrets({}, NAMESPACE, (), datetime.now(UTC))
    await installation.add(*((name, data) for name, data in first.items() if name not in missing))
    assert (await installation.init())[0] == 0
    assert set(await installation.secrets()) == set(first) - set(missing)


@pytest.mark.parametrize("missing", [of_user("router"), of_user("console")])
async def test_only_a_missing_key_is_created(installation: Installation, missing: str) -> None:
    first = desired_secrets({}, NAMESPACE, (), datetime.now(UTC))
    await installation.add(*((name, data) for name, data in first.items() if name != missing))
    before = await installation.secrets()
    code, log = await installation.init()
    after = await installation.secrets()
    assert (code, reload_command(NAMESPACE) in log) == (0, True), log
    assert {name for name, secret in after.items() if secret != before.get(name)} == {
        missing,
        SERVER,
    }
    assert (
        public_key(seed_of(after[missing]))
        in base64.b64decode(after[SERVER]["data"][AUTH]).decode()
    )
    assert after[missing]["data"][CA] == before[of_user(OPERATOR)]["data"][CA]


async def test_a_lost_server_secret_gets_a_new_ca_and_the_same_keys(
    installation: Installation,
) -> None:
    await installation.init()
    before = await installation.secrets()
    await installation.cluster.delete(SECRET, NAMESPACE, SERVER)
    assert (await installation.init())[0] == 0
    after = await installation.secrets()
    assert {name: seed_of(secret) for name, secret in after.items() if name != SERVER} == {
        name: seed_of(secret) for name, secret in before.items() if name != SERVER
    }
    assert {secret["data"][CA] for secret in after.values()} == {after[SERVER]["data"][CA]}


async def test_a_run_that_was_cut_short_is_completed_by_the_next(
    installation: Installation,
) -> None:
    """Killed at any request: the keys of some users exist by then."""
    cut = list(desired_secrets({}, NAMESPACE, (), datetime.now(UTC), unattended=True).items())[:3]
    await installation.add(*cut)
    assert (await installation.init())[0] == 0
    after = await installation.secrets()
    assert set(after) == MOUNTED
    assert {name: seed_of(after[name]).encode() for name, _ in cut} == {
        name: data[SEED] for name, data in cut
    }
    assert len({secret["data"][CA] for secret in after.values()}) == 1


async def test_an_existing_key_and_extra_data_stay(
    installation: Installation,
) -> None:
    seed = new_seed()
    await installation.add(
        (of_user("cacher"), {SEED: f"{seed}\n".encode(), "note": b"from the vault"})
    )
    assert (await installation.init())[0] == 0
    after = await installation.secrets()
    assert public_key(seed) in base64.b64decode(after[SERVER]["data"][AUTH]).decode()
    assert base64.b64decode(after[of_user("cacher")]["data"]["note"]) == b"from the vault"


@pytest.mark.parametrize("data", [{SEED: b"no seed"}, {SEED: b"\xff"}], ids=["no-seed", "no-text"])
async def test_malformed_secrets_are_named_and_left_unchanged(
    installation: Installation, data: dict[str, bytes]
) -> None:
    await installation.add((of_user("router"), data))
    before = await installation.secrets()
    code, log = await installation.init()
    assert (code, "aim-nats-router: nkey.seed is not an NKey seed" in log) == (1, True), log
    assert await installation.secrets() == before


async def test_without_its_namespace_it_fails_for_a_retry(installation: Installation) -> None:
    await installation.cluster.delete(NAMESPACES, None, NAMESPACE)
    code, log = await installation.init()
    assert (code, "nats-secrets-incomplete" in log) == (1, True), log
