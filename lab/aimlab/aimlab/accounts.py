"""Kubeconfigs: the account of each, and the API server that it names."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml

from aimkube import Cluster
from aimlab.apiserver.access import ADMIN_TOKEN
from aimlab.gateway.traefik import Api
from aimlab.kinds import Body
from aimschema.resources import SERVICE_ACCOUNT

TOKEN_S = 30 * 86_400


async def account_kubeconfigs(
    cluster: Cluster, api: Api, manifests: Iterable[Body], folder: Path
) -> dict[str, Path]:
    """For each ServiceAccount among the manifests, by its name."""
    accounts = [body["metadata"] for body in manifests if body["kind"] == SERVICE_ACCOUNT.kind]
    return {
        account["name"]: await account_kubeconfig(cluster, api, account, folder)
        for account in accounts
    }


async def account_kubeconfig(cluster: Cluster, api: Api, account: Body, folder: Path) -> Path:
    """For a ServiceAccount, by its metadata, with a token from the TokenRequest API, which is
    where a pod has its own from."""
    tokens = replace(SERVICE_ACCOUNT, plural=f"{SERVICE_ACCOUNT.plural}/{account['name']}/token")
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"namespace": account["namespace"]},
    }
    answer = await cluster.create(
        {**request, "spec": {"expirationSeconds": TOKEN_S}}, resource=tokens
    )
    path = folder / f"{account['name']}.kubeconfig"
    write_kubeconfig(path, api.url, token=answer["status"]["token"], ca_file=api.ca_file)
    return path


def write_kubeconfig(
    path: Path, url: str, *, token: str = ADMIN_TOKEN, ca_file: Path | None = None
) -> None:
    authority = {} if ca_file is None else {"certificate-authority": str(ca_file)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": url} | authority}],
        "users": [{"name": "lab", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    }
    path.write_text(yaml.safe_dump(config))


def api_of(kubeconfig: Path) -> Api:
    """The server, token and authority of a kubeconfig's current context."""
    config = yaml.safe_load(kubeconfig.read_text())

    def find(group: str, kind: str, name: str) -> Body:
        found: Body = next(one[kind] for one in config[group] if one["name"] == name)
        return found

    context = find("contexts", "context", config["current-context"])
    server = find("clusters", "cluster", context["cluster"])
    user = find("users", "user", context["user"])
    authority = server.get("certificate-authority")
    return Api(
        server["server"],
        user.get("token", ""),
        kubeconfig.parent / authority if authority else None,
    )
