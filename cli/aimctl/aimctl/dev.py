"""`aimctl dev` and `aimctl up`: the control plane until Ctrl-C, on a laptop cluster or against
the current kubeconfig."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from aimbus import Access
from aimbus.credentials import CA_SETTING, CREDS_SETTING
from aimctl.console import PlainConsole
from aimctl.nats_guard import NATS_KEYS, guarded
from aimctl.nats_users import CONSOLE
from aimctl.quickstart import MODEL, NAMESPACE, SERVICE
from aimctl.services import SERVICES, AccessOf, anybody, start_services
from aimctl.stack import control_plane_on_laptop, embedded_nats
from aimlab.lab import SYSTEM_NAMESPACE
from aimlab.processes import Children


async def run_dev(state_dir: Path, console: PlainConsole) -> None:
    """Until cancelled, or until a process ends: then RuntimeError names it and its log."""
    console.print("starting a laptop cluster and the six services …")
    async with control_plane_on_laptop(state_dir, guard=guarded(state_dir / NATS_KEYS)) as stack:
        kubectl = Path(sys.executable).with_name("kubectl")
        _say(
            console,
            f"export KUBECONFIG={stack.lab.kubeconfig} PATH={kubectl.parent}:$PATH"
            f" {_environment(stack.nats_url, stack.access)}",
        )
        console.print("try:")
        _say(console, f"kubectl apply -f {stack.quickstart.manifests}")
        _say(
            console,
            f"kubectl wait aimsvc/{SERVICE} -n {NAMESPACE} --for=condition=Ready --timeout=60s &&"
            " kubectl get aim -A",
        )
        url = (
            f"$(kubectl get aimsvc {SERVICE} -n {NAMESPACE} -o"
            " jsonpath={.status.url})/v1/chat/completions"
        )
        body = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "hello"}}]}}'
        _say(console, f"curl -s {url} -H 'content-type: application/json' -d '{body}'")
        console.print(
            f"logs are in {stack.lab.state_dir / 'log'}; Ctrl-C stops everything", soft_wrap=True
        )
        await _until_one_ends(stack.lab.children, stack.services)


async def run_up(state_dir: Path, console: PlainConsole) -> None:
    """Until cancelled, or until a service ends: then RuntimeError names it and its log."""
    async with AsyncExitStack() as stack:
        access: AccessOf = anybody
        nats_url = os.environ.get(
            "AIM_NATS_URL"
        )  # with one of their own, the files are named in the environment
        if nats_url is None:
            guard = guarded(state_dir / NATS_KEYS)
            nats_url, access = (
                (await stack.enter_async_context(embedded_nats(state_dir / "nats", guard))).url,
                guard.access,
            )
            console.print(
                f"embedded NATS server at {nats_url}, its store in {state_dir / 'nats'}; for other"
                " commands:",
                soft_wrap=True,
            )
            _say(console, f"export {_environment(nats_url, access(CONSOLE))}")
        services = await stack.enter_async_context(Children(state_dir / "log"))
        ending = asyncio.create_task(
            start_services(services, nats_url=nats_url, accounts=None, within_s=None, access=access)
        )
        console.print(
            f"starting {', '.join(SERVICES)}; logs are in {state_dir / 'log'}; Ctrl-C stops them",
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
        await _until_one_ends(services)


def _environment(nats_url: str, access: Access) -> str:
    return f"AIM_NATS_URL={nats_url} {CREDS_SETTING}={access.creds} {CA_SETTING}={access.ca}"


def _say(console: PlainConsole, command: str) -> None:
    console.print(f"  {command}", soft_wrap=True)


async def _until_one_ends(*groups: Children) -> None:
    waits = {asyncio.create_task(group.first_end()): group for group in groups}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        ended = next(iter(done))
        name, code = ended.result()
        raise RuntimeError(f"{name} ended with code {code}; its log is {waits[ended].log_of(name)}")
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
