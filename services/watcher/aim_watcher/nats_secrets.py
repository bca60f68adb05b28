"""Keys for every user of NATS and certificates for its server, as Kubernetes Secrets: for
`aim-watcher nats-init` and `aimctl nats init`.

1. What is there is kept: a second run changes nothing but what was asked for (`rotate`), what is
   missing, and a certificate that runs out soon.
2. A user's Secret holds its own seed and nobody else's; the server's holds public keys only.
3. The authority's key is in a Secret of its own, which no pod mounts. Unattended, it is thrown
   away, and no key is made for the operator: what only a person needs is not in the cluster until a
   person asks for it.
4. Seeds and keys go into Secrets, never into a message or a log.
5. What another run has written in between is not overwritten: the request is rejected, and the next
   run finds it.
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

SEED, CA, CERTIFICATE, KEY, CA_KEY, AUTH, TLS = (
    "nkey.seed",
    "ca.crt",
    "tls.crt",
    "tls.key",
    "ca.key",
    "auth.conf",
    "tls.conf",
)
AUTHORITY, SERVER = "aim-nats-ca", "aim-nats-server"
OPERATOR = "operator"
"""A person who also sends again what nobody could read, whoever said it: `aimctl dead retry`. No
process of ours has this key."""
MANAGER = "aimctl"


@cache
def permissions() -> dict[str, Permissions]:
    """Of every user, by name: those of the contracts of all services, written to nats_users.json
    by tests/contract/test_nats.py."""
    return msgspec.json.decode(
        resources.files("aim_watcher").joinpath("nats_users.json").read_bytes(),
        type=dict[str, Permissions],
    )


def of_user(user: str) -> str:
    """The name of the user's Secret."""
    return f"aim-nats-{user}"


def names() -> list[str]:
    """Of all Secrets there may be."""
    return [*(of_user(user) for user in permissions()), SERVER, AUTHORITY]


def server_names(namespace: str) -> list[str]:
    """What clients and the other servers of a cluster call the server."""
    return [
        "aim-nats",
        f"aim-nats.{namespace}",
        f"aim-nats.{namespace}.svc",
        f"*.aim-nats-headless.{namespace}.svc",
        "localhost",
        "127.0.0.1",
    ]


def wanted(
    there: Mapping[str, Mapping[str, bytes]],
    namespace: str,
    rotate: Collection[str],
    now: datetime,
    *,
    unattended: bool = False,
) -> Secrets:
    """All Secrets as they have to be, from those that are there. Raises ValueError naming the
    Secret whose content makes no sense.

    `unattended`: what only a person needs is kept where it is there, and not made.
    """
    authority = _authority(there, rotate, now)
    users = [
        user
        for user in permissions()
        if user != OPERATOR or not unattended or of_user(user) in there
    ]
    seeds = {user: _seed(there.get(of_user(user), {}), user, user in rotate) for user in users}
    secrets = {
        of_user(user): {SEED: seed.encode(), CA: authority.certificate}
        for user, seed in seeds.items()
    }
    server = _server(
        there.get(SERVER, {}),
        authority,
        server_names(namespace),
        not {"server", "ca"}.isdisjoint(rotate),
        now,
    )
    auth = auth_conf(
        {user: public_key(seed) for user, seed in seeds.items()}, permissions()
    ).encode()
    secrets[SERVER] = {
        AUTH: auth,
        TLS: tls_conf().encode(),
        CERTIFICATE: server.certificate,
        KEY: server.key,
        CA: authority.certificate,
    }
    if authority.key and (AUTHORITY in there or not unattended):
        secrets[AUTHORITY] = {CA: authority.certificate, CA_KEY: authority.key}
    return secrets


def _authority(
    there: Mapping[str, Mapping[str, bytes]], rotate: Collection[str], now: datetime
) -> Pair:
    """Without its key where that is kept elsewhere, or by nobody: good until the server needs
    another certificate."""
    own, server = there.get(AUTHORITY, {}), there.get(SERVER, {})
    if "ca" not in rotate and CA in own and CA_KEY in own:
        return Pair(own[CA], own[CA_KEY])
    if "ca" not in rotate and CA in server:
        return Pair(server[CA], b"")
    return make_authority(now)


def _seed(own: Mapping[str, bytes], user: str, new: bool) -> str:
    if new or SEED not in own:
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
    own: Mapping[str, bytes], authority: Pair, names: list[str], new: bool, now: datetime
) -> Pair:
    try:
        if (
            not new
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
    """Make or complete the Secrets in a cluster; gives those that were there and those that are
    wanted.

    May be called again whatever happened. Raises ValueError as `wanted` does, and KubeError:
    AlreadyExists or Conflict where another run wrote first.
    """
    found = await _read(cluster, namespace)
    there = {name: data_of(body) for name, body in found.items()}
    secrets = wanted(there, namespace, rotate, datetime.now(UTC), unattended=unattended)
    for name, data in secrets.items():
        body = manifest(name, namespace, data)
        if name not in found:
            await cluster.create(body, resource=SECRET)
        elif not data.items() <= there[name].items():
            body["metadata"]["resourceVersion"] = found[name]["metadata"]["resourceVersion"]
            await cluster.apply(body, manager=MANAGER, resource=SECRET)
    return there, secrets


async def _read(cluster: Cluster, namespace: str) -> dict[str, dict[str, Any]]:
    found = {}
    for name in names():
        try:
            found[name] = await cluster.get(SECRET, namespace, name)
        except NotFound:
            continue
    return found


def outcome(name: str, there: Mapping[str, Mapping[str, bytes]], secrets: Secrets) -> str:
    """What became of a Secret."""
    return (
        "created"
        if name not in there
        else "unchanged"
        if secrets[name].items() <= there[name].items()
        else "changed"
    )


def reload_command(namespace: str) -> str:
    """For a shell: nothing restarts; who is not in the files any more is disconnected."""
    pods = f"kubectl -n {namespace} get pods -l app.kubernetes.io/name=aim-nats -o name"
    return f"{pods} | xargs -I POD kubectl -n {namespace} exec POD -- nats-server --signal reload=1"
