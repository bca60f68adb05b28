"""`aimctl nats init`: keys for every user of NATS and certificates for its server, as Kubernetes Secrets.

1. What is there is kept: a second run changes nothing but what was asked for (`--rotate`), what is missing, and a certificate that runs out soon.
2. A user's Secret holds its own seed and nobody else's; the server's holds public keys only.
3. The authority's key is in a Secret of its own, which no pod mounts.
4. Seeds and keys go into Secrets and into files that only their owner reads, never into a message or a log.
"""

import base64
import os
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from aimbus.accounts import auth_conf, new_seed, public_key, tls_conf
from aimctl.nats_tls import Pair, make_authority, make_server, serves
from aimctl.nats_users import PERMISSIONS, USERS
from aimkube import Cluster, KubeError, NotFound
from aimschema.labels import MANAGED_BY, MANAGED_BY_AIM
from aimschema.resources import SECRET

Secrets = dict[str, dict[str, bytes]]
"""The data of each Secret, by name."""

SEED, CA, CERTIFICATE, KEY, CA_KEY, AUTH, TLS = "nkey.seed", "ca.crt", "tls.crt", "tls.key", "ca.key", "auth.conf", "tls.conf"
AUTHORITY, SERVER = "aim-nats-ca", "aim-nats-server"
ROTATABLE = (*USERS, "server", "ca")
MANAGER = "aimctl"
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def of_user(user: str) -> str:
    """The name of the user's Secret."""
    return f"aim-nats-{user}"


NAMES = (*(of_user(user) for user in USERS), SERVER, AUTHORITY)


def server_names(namespace: str) -> list[str]:
    """What clients and the other servers of a cluster call the server."""
    return ["aim-nats", f"aim-nats.{namespace}", f"aim-nats.{namespace}.svc", f"*.aim-nats-headless.{namespace}.svc", "localhost", "127.0.0.1"]


def wanted(there: Mapping[str, Mapping[str, bytes]], namespace: str, rotate: Collection[str], now: datetime) -> Secrets:
    """All Secrets as they have to be, from those that are there. Raises ValueError naming the Secret whose content makes no sense."""
    authority = _authority(there, rotate, now)
    seeds = {user: _seed(there.get(of_user(user), {}), user, user in rotate) for user in USERS}
    secrets = {of_user(user): {SEED: seed.encode(), CA: authority.certificate} for user, seed in seeds.items()}
    server = _server(there.get(SERVER, {}), authority, server_names(namespace), "server" in rotate, now)
    auth = auth_conf({user: public_key(seed) for user, seed in seeds.items()}, PERMISSIONS).encode()
    secrets[SERVER] = {AUTH: auth, TLS: tls_conf().encode(), CERTIFICATE: server.certificate, KEY: server.key, CA: authority.certificate}
    secrets[AUTHORITY] = {CA: authority.certificate, CA_KEY: authority.key}
    return secrets


def _authority(there: Mapping[str, Mapping[str, bytes]], rotate: Collection[str], now: datetime) -> Pair:
    own = there.get(AUTHORITY, {})
    if "ca" not in rotate and CA in own and CA_KEY in own:
        return Pair(own[CA], own[CA_KEY])
    if "ca" not in rotate and SERVER in there:
        raise ValueError(f"{AUTHORITY} is not there, but {SERVER} is: bring it back, or make a new authority with --rotate ca")
    return make_authority(now)


def _seed(own: Mapping[str, bytes], user: str, new: bool) -> str:
    if new or SEED not in own:
        return new_seed()
    seed = own[SEED].decode(errors="replace").strip()
    try:
        public_key(seed)
    except ValueError as error:
        raise ValueError(f"{of_user(user)}: {SEED} is {error}; make a new one with --rotate {user}") from error
    return seed


def _server(own: Mapping[str, bytes], authority: Pair, names: list[str], new: bool, now: datetime) -> Pair:
    if not new and CERTIFICATE in own and KEY in own and serves(own[CERTIFICATE], authority.certificate, names, now):
        return Pair(own[CERTIFICATE], own[KEY])
    return make_server(authority, names, now)


def manifest(name: str, namespace: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY: MANAGED_BY_AIM}},
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def _data(body: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}


def read_folder(folder: Path) -> Secrets:
    """The Secrets that an earlier run wrote there. Raises ValueError naming a file that holds something else."""
    found = {}
    for name in NAMES:
        path = folder / f"{name}.yaml"
        if path.exists():
            try:
                found[name] = _data(yaml.safe_load(path.read_text()))
            except (yaml.YAMLError, AttributeError, ValueError, TypeError) as error:
                raise ValueError(f"{path} is not a Secret that was written here; move it away") from error
    return found


def write_folder(folder: Path, namespace: str, secrets: Secrets) -> None:
    """One file a Secret, for its owner's eyes only from the first byte on; one that is there is replaced in one step."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in secrets.items():
        fresh = folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, NEW_FILE, 0o600), "w") as file:
            file.write(yaml.safe_dump(manifest(name, namespace, data), sort_keys=False))
        fresh.replace(folder / f"{name}.yaml")


def init_folder(folder: Path, namespace: str, rotate: Collection[str], say: Callable[[str], None]) -> None:
    """Make or complete the manifests in a folder."""
    there = read_folder(folder)
    secrets = wanted(there, namespace, rotate, datetime.now(UTC))
    write_folder(folder, namespace, secrets)
    _tell(there, secrets, say)


async def init_cluster(namespace: str, rotate: Collection[str], say: Callable[[str], None]) -> None:
    """Make or complete the Secrets in the cluster of the current kubeconfig. Raises RuntimeError where it cannot be asked."""
    try:
        cluster = await Cluster.connect(os.environ.get("KUBECONFIG"), user_agent=MANAGER)
        try:
            there = await _read_cluster(cluster, namespace)
            secrets = wanted(there, namespace, rotate, datetime.now(UTC))
            for name, data in secrets.items():
                if there.get(name) != data:
                    await cluster.apply(manifest(name, namespace, data), manager=MANAGER, resource=SECRET)
        finally:
            await cluster.close()
    except KubeError as error:
        raise RuntimeError(f"the Secrets in {namespace}: {error}") from error
    _tell(there, secrets, say)
    if SERVER in there and there[SERVER] != secrets[SERVER]:
        say(f"In about 90 s the new files are in the pods; then let every NATS server read them:\n  {reload_command(namespace)}")


async def _read_cluster(cluster: Cluster, namespace: str) -> Secrets:
    found = {}
    for name in NAMES:
        try:
            found[name] = _data(await cluster.get(SECRET, namespace, name))
        except NotFound:
            continue
    return found


def reload_command(namespace: str) -> str:
    """For a shell: nothing restarts; who is not in the files any more is disconnected."""
    pods = f"kubectl -n {namespace} get pods -l app.kubernetes.io/name=aim-nats -o name"
    return f"{pods} | xargs -I POD kubectl -n {namespace} exec POD -- nats-server --signal reload=1"


def to_text(namespace: str) -> str:
    """New Secrets as one YAML stream, for `kubectl apply -f -`."""
    secrets = wanted({}, namespace, (), datetime.now(UTC))
    return "---\n".join(yaml.safe_dump(manifest(name, namespace, data), sort_keys=False) for name, data in secrets.items())


def _tell(there: Mapping[str, Mapping[str, bytes]], secrets: Secrets, say: Callable[[str], None]) -> None:
    for name, data in secrets.items():
        say(f"secret/{name} {'created' if name not in there else 'unchanged' if there[name] == data else 'changed'}")
