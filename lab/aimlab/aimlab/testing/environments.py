"""Where the control plane's own processes can be tested without the rest of a laptop cluster."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aimctl.local.processes import Children
from aimkube import AlreadyExists, Cluster
from aimlab.accounts import account_kubeconfigs, api_of, write_kubeconfig
from aimlab.kinds import Body
from aimlab.lab import define, remove, start_double
from aimschema.names import SYSTEM_NAMESPACE


@asynccontextmanager
async def control_plane_place(
    external: Path | None, children: Children, folder: Path, manifests: Collection[Body]
) -> AsyncIterator[tuple[Cluster, dict[str, Path]]]:
    """An API server with the control plane's namespace and `manifests`, and a kubeconfig for each
    ServiceAccount among them.

    Where the server was given, what was made here goes at the end.
    """
    kubeconfig = external or folder / "kubeconfig"
    if external is None:
        write_kubeconfig(kubeconfig, await start_double(children))
    cluster = await Cluster.connect(str(kubeconfig))
    try:
        with suppress(AlreadyExists):
            await cluster.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
            )
        made = await define(cluster, manifests)
        yield cluster, await account_kubeconfigs(cluster, api_of(kubeconfig), manifests, folder)
        if external is not None:
            await remove(cluster, made)
    finally:
        await cluster.close()
