"""`aimctl up`: the control plane beside the cluster of the current kubeconfig."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from aimctl.component_registry import SERVICES
from aimctl.local.processes import Children, fail_when_one_ends
from aimctl.local.services import AccessOf, nats_environment, no_credentials, start_all_in_one
from aimctl.local.state_dir import run_in_state_dir
from aimctl.nats.key_files import NATS_KEYS, create_guard
from aimctl.nats.server import embedded_nats
from aimctl.nats.users import CONSOLE
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_command
from aimschema.names import SYSTEM_NAMESPACE


async def run_up(state_dir: Path, console: PlainConsole) -> None:
    """Until cancelled, or until a service ends: then RuntimeError names it and its log."""
    async with AsyncExitStack() as stack:
        access: AccessOf = no_credentials
        nats_url = os.environ.get(
            "AIM_NATS_URL"
        )  # with one of their own, the files are named in the environment
        if nats_url is None:
            guard = create_guard(state_dir / NATS_KEYS)
            nats_url = (
                await stack.enter_async_context(embedded_nats(state_dir / "nats", guard))
            ).url
            access = guard.access
            console.print(
                f"embedded NATS server at {nats_url}, its store in {state_dir / 'nats'}; for other"
                " commands:",
                soft_wrap=True,
            )
            print_command(console, f"export {nats_environment(nats_url, access(CONSOLE))}")
        services = await stack.enter_async_context(Children(state_dir / "log"))
        ending = asyncio.create_task(
            start_all_in_one(
                services, nats_url=nats_url, accounts=None, within_s=None, access=access
            )
        )
        console.print(
            f"starting {', '.join(SERVICES)} in one process; its log is in {state_dir / 'log'};"
            " Ctrl-C stops it",
            soft_wrap=True,
        )
        namespace = os.environ.get("AIM_NAMESPACE", SYSTEM_NAMESPACE)
        console.print(
            "the kinds and a namespace must be there: kubectl apply -f deploy/crds; kubectl create"
            f" namespace {namespace}",
            soft_wrap=True,
        )
        health = await ending
        console.print(
            f"ready: {', '.join(f'{service} {url}/readyz' for service, url in health.items())}",
            soft_wrap=True,
        )
        await fail_when_one_ends(services)


def up(state: Path | None) -> None:
    folder = (
        state or Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "aim"
    )
    run_in_state_dir(folder, run_up)
