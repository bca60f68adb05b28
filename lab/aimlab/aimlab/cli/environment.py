"""Everything at once: the laptop cluster, a NATS server and the control plane on it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aimbus import NatsCredentials, NatsServer
from aimctl.local.processes import Children
from aimctl.local.services import no_credentials, start_all_in_one, start_services
from aimctl.manifests import crds, rbac
from aimctl.nats.key_files import Guard
from aimctl.nats.server import embedded_nats
from aimctl.nats.users import CONSOLE
from aimlab.cli.quickstart import Quickstart, prepare
from aimlab.lab import Lab, laptop


@dataclass(frozen=True, slots=True)
class Stack:
    """A laptop cluster on which the control plane is ready, and the quickstart prepared. `nats`
    is None where the cluster itself runs it."""

    lab: Lab
    nats: NatsServer | None
    nats_url: str
    services: Children
    health: dict[str, str]
    quickstart: Quickstart
    access: NatsCredentials = field(default_factory=NatsCredentials)
    """With which files a person goes to NATS."""


@asynccontextmanager
async def control_plane_on_laptop(
    state_dir: Path,
    kubeconfig: Path | None = None,
    guard: Guard | None = None,
    settings: Mapping[str, str] | None = None,
    *,
    all_in_one: bool = False,
) -> AsyncIterator[Stack]:
    """Runs it all for as long as the block lasts, on an API server that is there if `kubeconfig` is
    given. With `guard`, NATS asks for keys.

    Each service is the ServiceAccount that deploy/rbac gives it, and has `settings` in its
    environment. With `all_in_one`, they run in one process. Raises RuntimeError naming the part
    that does not come up, and its log.
    """
    manifests = [*crds(), *rbac()]
    async with (
        laptop(state_dir, manifests, kubeconfig) as lab,
        embedded_nats(state_dir / "nats", guard) as nats,
        Children(state_dir / "log", env=settings) as services,
    ):
        quickstart = await prepare(lab)
        access = no_credentials if guard is None else guard.access
        start = start_all_in_one if all_in_one else start_services
        health = await start(services, nats_url=nats.url, accounts=lab.accounts, access=access)
        yield Stack(lab, nats, nats.url, services, health, quickstart, access(CONSOLE))


def kubectl_env(lab: Lab) -> dict[str, str]:
    """Environment in which kubectl talks to the laptop cluster and keeps its caches in the state
    folder."""
    return os.environ | {"KUBECONFIG": str(lab.kubeconfig), "HOME": str(lab.state_dir)}


async def kubectl(lab: Lab, *args: str) -> str:
    """What kubectl prints on the laptop cluster. Raises RuntimeError where it does not succeed."""
    command = str(Path(sys.executable).with_name("kubectl"))
    process = await asyncio.create_subprocess_exec(
        command,
        *args,
        env=kubectl_env(lab),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"kubectl {' '.join(args)}: {errors.decode()}")
    return output.decode()
