"""The six services as processes beside each other, or in one process, as they would run in a
cluster."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from aimbus import NatsCredentials
from aimbus.credentials import CA_SETTING, CREDS_SETTING
from aimctl.component_registry import ALL_IN_ONE, SERVICES
from aimctl.local.ports import free_ports
from aimctl.local.processes import READY_WITHIN_S, Children, until_answers

COMPONENT = "{component}"
"""In paths, what each component of one process replaces by its name."""

AccessOf = Callable[[str], NatsCredentials]


def no_credentials(_: str) -> NatsCredentials:
    """A NATS server that asks for no keys."""
    return NatsCredentials()


async def start_services(
    children: Children,
    *,
    nats_url: str,
    accounts: Mapping[str, Path] | None,
    within_s: float | None = READY_WITHIN_S,
    access: AccessOf = no_credentials,
) -> dict[str, str]:
    """Start all six and wait until each is ready; gives their health URLs. `within_s` None: wait
    for ever.

    `accounts` has the kubeconfig of each `aim-<service>`; None: all use the current one. `access`
    gives the NATS credentials of each. Raises RuntimeError that names the service that ended or is
    not ready in time, and its log.
    """
    urls = {}
    for service, port in zip(SERVICES, free_ports(len(SERVICES)), strict=True):
        account = None if accounts is None else accounts[f"aim-{service}"]
        urls[service] = await start_service(
            children, service, nats_url=nats_url, kubeconfig=account, port=port, access=access
        )
    async with asyncio.TaskGroup() as waiting:
        for service, url in urls.items():
            what = f"aim-{service}; its log is {children.log_of(service)}"
            waiting.create_task(
                until_answers(children.running[service], f"{url}/readyz", what, within_s)
            )
    return urls


async def start_all_in_one(
    children: Children,
    nats_url: str,
    *,
    accounts: Mapping[str, Path] | None,
    within_s: float | None = READY_WITHIN_S,
    access: AccessOf = no_credentials,
) -> dict[str, str]:
    """Like `start_services`, with all six in one process: each has its account and its keys."""
    (port,) = free_ports(1)
    folder = None if accounts is None else next(iter(accounts.values())).parent
    url = await start_service(
        children,
        ALL_IN_ONE,
        nats_url=nats_url,
        kubeconfig=None if folder is None else folder / f"aim-{COMPONENT}.kubeconfig",
        port=port,
        access=lambda _: access(COMPONENT),
    )
    what = f"aim-{ALL_IN_ONE}; its log is {children.log_of(ALL_IN_ONE)}"
    await until_answers(children.running[ALL_IN_ONE], f"{url}/readyz", what, within_s)
    return {ALL_IN_ONE: url}


async def start_service(
    children: Children,
    service: str,
    *,
    nats_url: str,
    kubeconfig: Path | None,
    port: int,
    access: AccessOf = no_credentials,
) -> str:
    """Start one; gives its health URL and does not wait until it is ready."""
    files = access(service)
    settings = {
        CREDS_SETTING: files.creds,
        CA_SETTING: files.ca,
        "KUBECONFIG": None if kubeconfig is None else str(kubeconfig),
    }
    env = {
        "AIM_NATS_URL": nats_url,
        "AIM_HTTP_PORT": str(port),
        **{name: value for name, value in settings.items() if value is not None},
    }
    await children.start(service, [str(Path(sys.executable).with_name(f"aim-{service}"))], env=env)
    return f"http://127.0.0.1:{port}"


def nats_environment(nats_url: str, access: NatsCredentials) -> str:
    return f"AIM_NATS_URL={nats_url} {CREDS_SETTING}={access.creds} {CA_SETTING}={access.ca}"
