"""`aimctl nats init`: it creates Secrets, leaves existing ones alone, and protects its files."""

import base64
import json
import stat
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from typer.testing import CliRunner

from aim_watcher.nats_secrets import SEED, desired_secrets, of_user, reload_command, server_names
from aim_watcher.nats_tls import RENEW_BEFORE, SERVER_GOOD_FOR
from aimbus.accounts import public_key
from aimctl.app import app
from aimctl.nats.secrets import NAMES, init_cluster
from aimctl.nats.users import USERS
from aimkube import Cluster
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimschema.resources import SECRET

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NAMESPACE = "aim-system"
Secrets = Mapping[str, Mapping[str, bytes]]


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["nats", "init", *args])
    return done.exit_code, done.output


def differing(before: Secrets, after: Secrets) -> set[str]:
    return {name for name in NAMES if before[name] != after[name]}


def test_each_user_has_its_own_key_the_server_only_public_ones() -> None:
    made = desired_secrets({}, NAMESPACE, (), NOW)
    seeds = {user: made[of_user(user)][SEED].decode() for user in USERS}
    assert len(set(seeds.values())) == len(USERS)
    server = b"".join(made["aim-nats-server"].values()).decode()
    assert all(public_key(seed) in server and seed not in server for seed in seeds.values())
    assert set(made) == set(NAMES)
    assert {tuple(made[of_user(user)]) for user in USERS} == {("nkey.seed", "ca.crt")}
    assert "ca.key" not in made["aim-nats-server"]


def test_the_certificate_is_for_what_the_server_is_called() -> None:
    made = desired_secrets({}, "infra", (), NOW)["aim-nats-server"]["tls.crt"]
    names = (
        x509.load_pem_x509_certificate(made)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert [str(name.value) for name in names] == server_names("infra")
    assert "*.aim-nats-headless.infra.svc" in server_names("infra")


@pytest.mark.parametrize(
    ("rotate", "later", "changes"),
    [
        pytest.param((), timedelta(), set(), id="nothing"),
        pytest.param(
            ("cacher",), timedelta(), {"aim-nats-cacher", "aim-nats-server"}, id="one-user"
        ),
        pytest.param(("server",), timedelta(), {"aim-nats-server"}, id="the-server's-certificate"),
        pytest.param(
            (), SERVER_GOOD_FOR - RENEW_BEFORE - timedelta(hours=1), set(), id="still-good"
        ),
        pytest.param(
            (),
            SERVER_GOOD_FOR - RENEW_BEFORE + timedelta(hours=1),
            {"aim-nats-server"},
            id="runs-out",
        ),
        pytest.param(("ca",), timedelta(), set(NAMES), id="the-authority"),
    ],
)
def test_existing_secrets_are_unchanged(
    rotate: tuple[str, ...], later: timedelta, changes: set[str]
) -> None:
    first = desired_secrets({}, NAMESPACE, (), NOW)
    assert differing(first, desired_secrets(first, NAMESPACE, rotate, NOW + later)) == changes


def test_a_new_authority_leaves_the_keys_of_users() -> None:
    first = desired_secrets({}, NAMESPACE, (), NOW)
    second = desired_secrets(first, NAMESPACE, ("ca",), NOW)
    assert {user: second[of_user(user)][SEED] for user in USERS} == {
        user: first[of_user(user)][SEED] for user in USERS
    }


def test_what_is_missing_is_made() -> None:
    first = desired_secrets({}, NAMESPACE, (), NOW)
    left = {name: data for name, data in first.items() if name != "aim-nats-router"}
    assert differing(first, desired_secrets(left, NAMESPACE, (), NOW)) == {
        "aim-nats-router",
        "aim-nats-server",
    }


def test_a_missing_authority_is_required_only_when_needed() -> None:
    first = desired_secrets({}, NAMESPACE, (), NOW)
    left = {name: data for name, data in first.items() if name != "aim-nats-ca"}
    assert desired_secrets(left, NAMESPACE, (), NOW) == left
    for rotate, later in (
        (("server",), timedelta()),
        ((), SERVER_GOOD_FOR - RENEW_BEFORE + timedelta(hours=1)),
    ):
        with pytest.raises(
            ValueError, match="bring it back, or make a new authority with --rotate ca"
        ):
            desired_secrets(left, NAMESPACE, rotate, NOW + later)
    assert differing(first, desired_secrets(left, NAMESPACE, ("ca",), NOW)) == set(NAMES)


def test_a_bad_certificate_is_named_and_can_be_replaced() -> None:
    first = desired_secrets({}, NAMESPACE, (), NOW)
    broken = {**first, "aim-nats-server": {**first["aim-nats-server"], "tls.crt": b"?"}}
    with pytest.raises(
        ValueError,
        match=r"aim-nats-server: tls\.crt is no certificate; make a new one with --rotate ca",
    ):
        desired_secrets(broken, NAMESPACE, (), NOW)
    assert differing(first, desired_secrets(broken, NAMESPACE, ("ca",), NOW)) == set(NAMES)


def test_a_folder_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    code, output = run("-o", str(folder), "-n", "infra")
    assert (code, output.count(" created\n")) == (0, len(NAMES)), output
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(files) == {f"{name}.yaml" for name in NAMES}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {yaml.safe_load(text)["metadata"]["namespace"] for text in files.values()} == {"infra"}
    code, output = run("-o", str(folder), "-n", "infra")
    assert (code, output.count(" unchanged\n")) == (0, len(NAMES)), output
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    code, output = run("-o", str(folder), "-n", "infra", "--rotate", "cacher")
    assert (code, output.count(" changed\n")) == (0, 2), output
    seeds = [
        base64.b64decode(yaml.safe_load(files[f"{of_user(user)}.yaml"])["data"][SEED]).decode()
        for user in USERS
    ]
    assert not any(seed in output for seed in seeds)


def test_without_a_place_new_ones_are_printed_for_kubectl() -> None:
    code, output = run()
    assert code == 0
    assert [body["metadata"]["name"] for body in yaml.safe_load_all(output)] == list(NAMES)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(["--rotate", "unknown", "-o", "x"], "unknown", id="who"),
        pytest.param(["--rotate", "cacher"], "--output or --apply", id="rotate-what"),
        pytest.param(["--apply", "-o", "x"], "not both", id="where"),
    ],
)
def test_wrong_usage_is_an_error(args: list[str], message: str) -> None:
    code, output = run(*args)
    assert (code, message in output) == (2, True), output


def test_a_foreign_file_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "aim-nats-cacher.yaml").write_text("[1]")
    code, output = run("-o", str(tmp_path))
    assert (code, "is not a Secret that was written here" in " ".join(output.split())) == (
        1,
        True,
    ), output
    assert [path.name for path in tmp_path.iterdir()] == ["aim-nats-cacher.yaml"]


@pytest.fixture
async def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    async with ApiServer() as server:
        path = tmp_path / "kubeconfig"
        write_kubeconfig(path, server.url)
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield path


async def test_secrets_are_made_once_in_a_cluster(kubeconfig: Path) -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeError, match="aim-system"):
        await init_cluster(NAMESPACE, (), lines.append)
    cluster = await Cluster.connect(str(kubeconfig))
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    await init_cluster(NAMESPACE, (), lines.append)

    async def secrets_data() -> dict[str, Any]:
        found = await cluster.list(SECRET, NAMESPACE)
        return {item["metadata"]["name"]: item["data"] for item in found.items}

    first = await secrets_data()
    assert set(first) == set(NAMES)
    await init_cluster(NAMESPACE, (), lines.append)
    assert await secrets_data() == first
    assert [line for line in lines if "reload" in line] == []
    await init_cluster(NAMESPACE, ("router",), lines.append)
    assert lines[-1].endswith(reload_command(NAMESPACE))
    assert {name for name, data in (await secrets_data()).items() if data != first[name]} == {
        "aim-nats-router",
        "aim-nats-server",
    }
    assert not any(
        base64.b64decode(data[SEED]).decode() in json.dumps(lines)
        for data in first.values()
        if SEED in data
    )
    await cluster.close()


def test_the_page_has_the_command_printed_after_a_rotation() -> None:
    assert (
        reload_command(NAMESPACE)
        in (Path(__file__).parents[3] / "docs" / "how-to" / "nats.md").read_text()
    )
