"""`aimctl nats init`: the Secrets of NATS for a person, in a cluster, in a folder or printed. What
is in them: aim_watcher.nats_secrets.

Seeds and keys go into Secrets and into files that only their owner reads, never into a message or a
log.
"""

import os
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import yaml

from aim_watcher.nats_secrets import (
    MANAGER,
    SERVER,
    Secrets,
    complete,
    data_of,
    desired_secrets,
    manifest,
    names,
    outcome,
    reload_command,
)
from aimkube import Cluster, KubeError

NAMES = tuple(names())
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def read_folder(folder: Path) -> Secrets:
    """The Secrets that an earlier run wrote there. Raises ValueError naming a file that holds
    something else."""
    found = {}
    for name in NAMES:
        path = folder / f"{name}.yaml"
        if path.exists():
            try:
                found[name] = data_of(yaml.safe_load(path.read_text()))
            except (yaml.YAMLError, AttributeError, ValueError, TypeError) as error:
                raise ValueError(
                    f"{path} is not a Secret that was written here; move it away"
                ) from error
    return found


def write_folder(folder: Path, namespace: str, secrets: Secrets) -> None:
    """One file a Secret, for its owner's eyes only from the first byte on; one that is there is
    replaced in one step."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in secrets.items():
        fresh = folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, NEW_FILE, 0o600), "w") as file:
            file.write(yaml.safe_dump(manifest(name, namespace, data), sort_keys=False))
        fresh.replace(folder / f"{name}.yaml")


def init_folder(
    folder: Path, namespace: str, rotate: Collection[str], print_line: Callable[[str], None]
) -> None:
    """Make or complete the manifests in a folder."""
    existing = read_folder(folder)
    secrets = desired_secrets(existing, namespace, rotate, datetime.now(UTC))
    write_folder(folder, namespace, secrets)
    _print_outcomes(existing, secrets, print_line)


async def init_cluster(
    namespace: str, rotate: Collection[str], print_line: Callable[[str], None]
) -> None:
    """Make or complete the Secrets in the cluster of the current kubeconfig. Raises RuntimeError
    where it cannot be asked."""
    try:
        cluster = await Cluster.connect(os.environ.get("KUBECONFIG"), user_agent=MANAGER)
        try:
            existing, secrets = await complete(cluster, namespace, rotate)
        finally:
            await cluster.close()
    except KubeError as error:
        raise RuntimeError(f"the Secrets in {namespace}: {error}") from error
    _print_outcomes(existing, secrets, print_line)
    if SERVER in existing and outcome(SERVER, existing, secrets) == "changed":
        print_line(
            "In about 90 s the new files are in the pods; then let every NATS server read them:\n "
            f" {reload_command(namespace)}"
        )


def to_text(namespace: str) -> str:
    """New Secrets as one YAML stream, for `kubectl apply -f -`."""
    secrets = desired_secrets({}, namespace, (), datetime.now(UTC))
    return "---\n".join(
        yaml.safe_dump(manifest(name, namespace, data), sort_keys=False)
        for name, data in secrets.items()
    )


def _print_outcomes(
    existing: Mapping[str, Mapping[str, bytes]], secrets: Secrets, print_line: Callable[[str], None]
) -> None:
    for name in secrets:
        print_line(f"secret/{name} {outcome(name, existing, secrets)}")
