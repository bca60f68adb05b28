"""Traefik's informers, from which its routes come: the double gives them each kind, as the
initial events of a watch, and answers all else too."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from aimkube import Cluster
from aimlab.apiserver import ApiServer
from aimlab.crds import bundled_crds
from aimlab.gateway.traefik import Api, traefik
from aimlab.testing import NAMESPACE, eventually
from aimlab.testing.recording_proxy import RecordedRequest, recording_proxy

pytest_plugins = ["aimlab.testing.fixtures"]
GATEWAY_API = {
    "gatewayclasses",
    "gateways",
    "httproutes",
    "grpcroutes",
    "tlsroutes",
    "referencegrants",
    "backendtlspolicies",
}
KINDS = GATEWAY_API | {"namespaces", "services", "endpointslices", "secrets", "configmaps"}


def watched(recorded_requests: list[RecordedRequest]) -> set[str]:
    """The plurals of which a watch was accepted."""
    urls = [urlsplit(one.path) for one in recorded_requests if one.status == 200]
    return {
        url.path.rpartition("/")[2]
        for url in urls
        if parse_qs(url.query).get("watch") in (["true"], ["1"])
    }


async def test_every_kind_is_watched(cluster: Cluster, api: ApiServer, tmp_path: Path) -> None:
    for crd in bundled_crds():
        await cluster.create(crd)
    async with (
        recording_proxy(api.url) as (recorded_requests, url),
        traefik(cluster, Api(url), namespace=NAMESPACE, folder=tmp_path / "logs"),
    ):

        async def all_are_watched() -> bool:
            return watched(recorded_requests) == KINDS

        await eventually(all_are_watched, f"Traefik watches {', '.join(sorted(KINDS))}")
        errors = [one for one in recorded_requests if one.status >= 300]
        assert [
            one for one in errors if (one.method, one.status) != ("PUT", 409)
        ] == []  # (two of its status writes may meet)
