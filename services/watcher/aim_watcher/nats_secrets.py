"""Creates keys for every user of NATS, and certificates for its server, as Kubernetes Secrets. Used
by `aim-watcher nats-init` and `aimctl nats init`.

1. Existing Secrets stay. A second run changes only the keys to rotate (`rotate`), missing Secrets,
   and a certificate that expires soon.
2. A user's Secret has only the seed of that user. The server's Secret has public keys only.
3. The CA's key is in a Secret of its own, which no pod mounts. An unattended run discards that key
   and creates no key for the operator: a key that only people use is not in the cluster until a
   user requests it.
4. Seeds and keys are only in Secrets, never in a message or a log.
5. A run never overwrites a concurrent write: the API server rejects the request, and the next run
   reads the new state.
"""

import base64
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from aim_watcher.nats_tls import Pair, make_authority, make_server, serves
from aimbus.accounts import auth_conf, new_seed, public_key, tls_conf
from aimbus.permissions import Permissions
from aimkube import Cluster, NotFound
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.resources import SECRET

Secrets = dict[str, dict[str, bytes]]
"""The data of each Secret, by name."""

SEED = "nkey.seed"
CA = "ca.crt"
CA_KEY = "ca.key"
CERTIFICATE = "tls.crt"
KEY = "tls.key"
AUTH = "auth.conf"
TLS = "tls.conf"
AUTHORITY = "aim-nats-ca"
SERVER = "aim-nats-server"
OPERATOR = "operator"
"""The user of `aimctl dead retry`. It may republish undecodable messages of every component, and no
component has its key."""
MANAGER = "aimctl"


@cache
def permissions() -> dict[str, Permissions]:
    """The permissions of every user by name, from the contracts of all services.
    tests/contract/test_nats.py writes nats_users.json."""
    return msgspec.json.decode(
        resources.files("aim_watcher").joinpath("nats_users.json").read_bytes(),
        type=dict[str, Permissions],
    )


def of_user(user: str) -> str:
    """The name of the user's Secret."""
    return f"aim-nats-{user}"


def names() -> list[str]:
    """The names of all possible Secrets."""
    return [*(of_user(user) for user in permissions()), SERVER, AUTHORITY]


def server_names(namespace: str) -> list[str]:
    """The host names of the server for clients and for other servers of its cluster."""
    return [
        "aim-nats",
        f"aim-nats.{namespace}",
        f"aim-nats.{namespace}.svc",
        f"*.aim-nats-headless.{namespace}.svc",
        "localhost",
        "127.0.0.1",
    ]


def desired_secrets(
    existing: Mapping[str, Mapping[str, bytes]],
    namespace: str,
    rotate: Collection[str],
    now: datetime,
    *,
    unattended: bool = False,
) -> Secrets:
    """The desired Secrets, computed from the existing ones. Raises ValueError that names a Secret
    with malformed content.

    `unattended`: keys that only people use stay if they exist, and are not created.
    """
    authority = _authority(existing, rotate, now)
    seeds = _seeds(existing, rotate, unattended=unattended)
    secrets = {
        of_user(user): {SEED: seed.encode(), CA: authority.certificate}
        for user, seed in seeds.items()
    }
    is_new = not {"server", "ca"}.isdisjoint(rotate)
    server = _server(
        existing.get(SERVER, {}), authority, server_names(namespace), now, is_new=is_new
    )
    public_keys = {user: public_key(seed) for user, seed in seeds.items()}
    secrets[SERVER] = {
        AUTH: auth_conf(public_keys, permissions()).encode(),
        TLS: tls_conf().encode(),
        CERTIFICATE: server.certificate,
        KEY: server.key,
        CA: authority.certificate,
    }
    if authority.key and (AUTHORITY in existing or not unattended):
        secrets[AUTHORITY] = {CA: authority.certificate, CA_KEY: authority.key}
    return secrets


def _seeds(
    existing: Mapping[str, Mapping[str, bytes]], rotate: Collection[str], *, unattended: bool
) -> dict[str, str]:
    """The seed of each user by name."""
    users = [
        user
        for user in permissions()
        if user != OPERATOR or not unattended or of_user(user) in existing
    ]
    return {
        user: _seed(existing.get(of_user(user), {}), user, is_new=user in rotate) for user in users
    }


def _authority(
    existing: Mapping[str, Mapping[str, bytes]], rotate: Collection[str], now: datetime
) -> Pair:
    """The CA. Without its key if no Secret has it: that is enough until the server needs another
    certificate."""
    own = existing.get(AUTHORITY, {})
    server = existing.get(SERVER, {})
    if "ca" not in rotate and CA in own and CA_KEY in own:
        return Pair(own[CA], own[CA_KEY])
    if "ca" not in rotate and CA in server:
        return Pair(server[CA], b"")
    return make_authority(now)


def _seed(own: Mapping[str, bytes], user: str, *, is_new: bool) -> str:
    if is_new or SEED not in own:
        return new_seed()
    seed = own[SEED].decode(errors="replace").strip()
    try:
        public_key(seed)
    except ValueError as error:
        raise ValueError(
            f"{of_user(user)}: {SEED} is {error}; make a new one with --rotate {user}"
        ) from error
    return seed


def _server(
    own: Mapping[str, bytes], authority: Pair, names: list[str], now: datetime, *, is_new: bool
) -> Pair:
    try:
        if (
            not is_new
            and CERTIFICATE in own
            and KEY in own
            and serves(own[CERTIFICATE], authority.certificate, names, now)
        ):
            return Pair(own[CERTIFICATE], own[KEY])
    except ValueError as error:
        raise ValueError(
            f"{SERVER}: {CERTIFICATE} is no certificate; make a new one with --rotate ca"
        ) from error
    if not authority.key:
        raise ValueError(
            f"{AUTHORITY} is missing, and {SERVER} needs a new certificate: bring it back, or make"
            " a new authority with --rotate ca"
        )
    return make_server(authority, names, now)


def manifest(name: str, namespace: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY: MANAGED_BY_AIM}},
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def data_of(body: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}


async def complete(
    cluster: Cluster, namespace: str, rotate: Collection[str] = (), *, unattended: bool = False
) -> tuple[Secrets, Secrets]:
    """Create or complete the Secrets in a cluster. Returns the existing and the desired ones.

    May be repeated after any error. Raises ValueError as `desired_secrets` does, and KubeError:
    AlreadyExists or Conflict if another run wrote first.
    """
    found = await _read(cluster, namespace)
    existing = {name: data_of(body) for name, body in found.items()}
    secrets = desired_secrets(existing, namespace, rotate, datetime.now(UTC), unattended=unattended)
    for name, data in secrets.items():
        body = manifest(name, namespace, data)
        if name not in found:
            await cluster.create(body, resource=SECRET)
        elif not data.items() <= existing[name].items():
            body["metadata"]["resourceVersion"] = found[name]["metadata"]["resourceVersion"]
            await cluster.apply(body, manager=MANAGER, resource=SECRET)
    return existing, secrets


async def _read(cluster: Cluster, namespace: str) -> dict[str, dict[str, Any]]:
    found = {}
    for name in names():
        try:
            found[name] = await cluster.get(SECRET, namespace, name)
        except NotFound:
            continue
    return found


def outcome(name: str, existing: Mapping[str, Mapping[str, bytes]], secrets: Secrets) -> str:
    """What `complete` did with a Secret: created, unchanged or changed."""
    if name not in existing:
        return "created"
    return "unchanged" if secrets[name].items() <= existing[name].items() else "changed"


def reload_command(namespace: str) -> str:
    """A shell command that reloads the servers. Nothing restarts; users that are no longer in the
    files are disconnected."""
    pods = f"kubectl -n {namespace} get pods -l app.kubernetes.io/name=aim-nats -o name"
    return f"{pods} | xargs -I POD kubectl -n {namespace} exec POD -- nats-server --signal reload=1"
