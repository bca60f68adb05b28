"""A real kube-apiserver with its etcd, from a folder that has both (KUBEBUILDER_ASSETS, the
convention of controller-runtime's envtest).

Nothing else of a control plane runs: no controllers, no scheduler, no nodes. Everything is on
loopback and in one folder, and ends with the block.
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, Process
from aimlab.accounts import api_of, write_kubeconfig
from aimlab.certificates import Certificate, make_certificate

HOST = "127.0.0.1"
PROGRAMS = ("etcd", "kube-apiserver")
ALONE = ("--disable-admission-plugins=ServiceAccount",)
"""Pods need no service account where nothing makes the `default` ones."""
READY_WITHIN_S = 60.0
POLL_S = 0.2


@asynccontextmanager
async def kube_apiserver(
    assets: Path, folder: Path, more: Iterable[str] = ALONE
) -> AsyncIterator[Path]:
    """Runs both for as long as the block lasts; gives an administrator's kubeconfig. `more` are
    further flags of kube-apiserver.

    Raises RuntimeError naming what is missing or fails.
    """
    missing = [program for program in PROGRAMS if not (assets / program).is_file()]
    if missing:
        raise RuntimeError(f"not in {assets}: {', '.join(missing)}")
    client_port, peer_port, port = free_ports(3)
    certificate, token = make_certificate(folder, "apiserver"), secrets.token_hex()
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{token},admin,admin,"system:masters"\n')
    kubeconfig = folder / "kubeconfig"
    write_kubeconfig(
        kubeconfig, f"https://{HOST}:{port}", token=token, ca_file=certificate.certificate
    )
    async with Children(folder / "log") as children:
        await children.start(
            "etcd", [str(assets / "etcd"), *etcd_flags(folder / "etcd", client_port, peer_port)]
        )
        flags = apiserver_flags(f"http://{HOST}:{client_port}", port, certificate, tokens)
        process = await children.start(
            "kube-apiserver", [str(assets / "kube-apiserver"), *flags, *more]
        )
        await _until_ready(process, kubeconfig, children.log_of("kube-apiserver"))
        yield kubeconfig


def etcd_flags(data: Path, client_port: int, peer_port: int) -> list[str]:
    clients = f"http://{HOST}:{client_port}"
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls=http://{HOST}:{peer_port}",
        "--unsafe-no-fsync",
    ]


def apiserver_flags(etcd: str, port: int, certificate: Certificate, tokens: Path) -> list[str]:
    """The Service `kubernetes` gets no endpoints, which would be on loopback."""
    return [
        f"--etcd-servers={etcd}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate.certificate}",
        f"--tls-private-key-file={certificate.key}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        f"--service-account-issuer=https://{HOST}:{port}",
        f"--service-account-key-file={certificate.key}",
        f"--service-account-signing-key-file={certificate.key}",
    ]


async def _until_ready(process: Process, kubeconfig: Path, log: Path) -> None:
    """Ready as a whole: controllers that start before give up after 10 s."""
    api = api_of(kubeconfig)
    give_up, why = time.monotonic() + READY_WITHIN_S, ""
    tls = ssl.create_default_context(cafile=api.ca_file)
    headers = {"Authorization": f"Bearer {api.token}"}
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(ssl=tls), trust_env=False
    ) as client:
        while True:
            try:
                async with client.get(f"{api.url}/readyz") as answer:
                    why = await answer.text()
                    if answer.ok:
                        return
            except aiohttp.ClientError as error:
                why = str(error)
            if process.returncode is not None or time.monotonic() > give_up:
                raise RuntimeError(f"kube-apiserver did not come up ({why}); its log is {log}")
            await asyncio.sleep(POLL_S)
