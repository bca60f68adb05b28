"""Names and addresses of Services on a machine without a cluster network: the work of cluster DNS
and kube-proxy.

A Service has its own loopback address, like a pod. The node accepts connections there and forwards
them to a ready pod of its selector. Cluster DNS names in a container's environment are replaced by
that address when the container starts. Headless Services have none.
"""

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import Mapping

from aimlab.informer import Informer, Objects
from aimlab.kinds import SERVICE, Body, is_deleting, is_true, uid_of
from aimlab.node.launch import address_of
from aimlab.node.probes import port_number
from aimschema.resources import POD

_LOG = logging.getLogger(__name__)
_NAME = re.compile(
    r"(tls://)?\b(([a-z0-9][-a-z0-9]*)\.([a-z0-9][-a-z0-9]*)\.svc(?:\.cluster\.local)?)\b"
)
HOSTS = "AIMLAB_HOSTS"
Place = tuple[str, int]


class UnknownNameError(Exception):
    """No such Service has an address."""


def resolve_names(env: Mapping[str, str], state: Objects) -> dict[str, str]:
    """`env` with addresses in place of the DNS names of Services. Raises UnknownNameError.

    A name after `tls://` stays, since it is compared with a certificate: HOSTS has its address, for
    aimlab.node.network_namespace_shim.
    """
    hosts: dict[str, str] = {}

    def replace(found: re.Match[str]) -> str:
        address = _address(found[4], found[3], state)
        if not found[1]:
            return address
        hosts[found[2]] = address
        return found[0]

    env_resolved = {name: _NAME.sub(replace, value) for name, value in env.items()}
    return env_resolved | (
        {HOSTS: ",".join(f"{name}={address}" for name, address in hosts.items())} if hosts else {}
    )


def _address(namespace: str, name: str, state: Objects) -> str:
    service = state.find(SERVICE, namespace, name)
    if service is None or not has_address(service):
        raise UnknownNameError(f"no Service {namespace}/{name} has an address")
    return address_of(uid_of(service))


def has_address(service: Body) -> bool:
    return bool(service["spec"].get("selector")) and service["spec"].get("clusterIP") != "None"


def backends(service: Body, port: Body, state: Objects) -> list[Place]:
    """Where the connections of a Service's port go: the ready pods that its selector names."""
    selector = service["spec"]["selector"].items()
    pods = [
        pod
        for pod in state.all(POD, service["metadata"]["namespace"])
        if selector <= (pod["metadata"].get("labels") or {}).items()
    ]
    target: int | str = port.get("targetPort") or port["port"]
    return [
        (pod["status"]["podIP"], number)
        for pod in pods
        if is_true(pod, "Ready") and not is_deleting(pod)
        for number in {port_number(target, container) for container in pod["spec"]["containers"]}
        if number
    ]


async def serve(mirror: Informer) -> None:
    """Takes the connections of all Services until cancelled."""
    changed = mirror.listen()
    await mirror.loaded.wait()
    listening: dict[Place, asyncio.Server] = {}
    try:
        while True:
            changed.clear()
            desired = {
                (address_of(uid_of(service)), port["port"]): (service, port)
                for service in mirror.objects.all(SERVICE)
                if has_address(service)
                for port in service["spec"].get("ports") or []
            }
            for place in listening.keys() - desired.keys():
                listening.pop(place).close()
            for place in desired.keys() - listening.keys():
                listening[place] = await _listen(place, *desired[place], mirror.objects)
            await changed.wait()
    finally:
        for server in listening.values():
            server.close()


async def _listen(place: Place, service: Body, port: Body, state: Objects) -> asyncio.Server:
    turns = itertools.count()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        targets = backends(service, port, state)
        try:
            if targets:
                await pipe(reader, writer, targets[next(turns) % len(targets)])
        except OSError as error:
            _LOG.info("a connection to Service %s ended: %s", service["metadata"]["name"], error)
        finally:
            writer.close()

    return await asyncio.start_server(take, *place)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: Place) -> None:
    """Both directions, until either side ends."""
    back_reader, back_writer = await asyncio.open_connection(*to)
    ways = [
        asyncio.create_task(_copy(reader, back_writer)),
        asyncio.create_task(_copy(back_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        back_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
