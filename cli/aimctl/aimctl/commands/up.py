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
        nats_url, access = await _find_nats(stack, state_dir, console)
        services = await stack.enter_async_context(Children(state_dir / "log"))
        ending = asyncio.create_task(
            start_all_in_one(services, nats_url, accounts=None, within_s=None, access=access)
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


async def _find_nats(
    stack: AsyncExitStack, state_dir: Path, console: PlainConsole
) -> tuple[str, AccessOf]:
    """The server of AIM_NATS_URL, whose key files the environment names, or one that ends with the
    stack."""
    url = os.environ.get("AIM_NATS_URL")
    if url is not None:
        return url, no_credentials
    store = state_dir / "nats"
    guard = create_guard(state_dir / NATS_KEYS)
    url = (await stack.enter_async_context(embedded_nats(store, guard))).url
    console.print(
        f"embedded NATS server at {url}, its store in {store}; for other commands:",
        soft_wrap=True,
    )
    print_command(console, f"export {nats_environment(url, guard.access(CONSOLE))}")
    return url, guard.access


def up(state: Path | None) -> None:
    folder = (
        state or Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "aim"
    )
    run_in_state_dir(folder, run_up)
