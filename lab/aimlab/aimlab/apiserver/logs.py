"""Pod logs and who to ask for them: the kubelet of the Pod's node, over https.

Its certificate is not checked, as kube-apiserver does not without --kubelet-certificate-authority.
"""

import contextlib

from aiohttp import ClientError, ClientSession, web

from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, bad_request
from aimlab.apiserver.objects import Obj, dig

PASSED_ON = (
    "follow",
    "tailLines",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
)


def kubelet_url(cluster: Cluster, pod: Obj, container: str) -> str:
    """Where the log of a container is. ApiError 400 if the container or the node is not known
    yet."""
    metadata = pod["metadata"]
    names = [
        found["name"]
        for found in [
            *(dig(pod, "spec", "containers") or []),
            *(dig(pod, "spec", "initContainers") or []),
        ]
    ]
    if not container:
        if len(dig(pod, "spec", "containers") or []) != 1:
            raise bad_request(
                f"a container name must be specified for pod {metadata['name']}, choose one of:"
                f" [{' '.join(names)}]"
            )
        container = names[0]
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {metadata['name']}")
    entry = cluster.store.collections["", "nodes"].get("", dig(pod, "spec", "nodeName") or "")
    if entry is None:
        raise bad_request(f"pod {metadata['name']} does not have a host assigned")
    addresses = {
        found["type"]: found["address"] for found in dig(entry.obj, "status", "addresses") or ()
    }
    port = dig(entry.obj, "status", "daemonEndpoints", "kubeletEndpoint", "Port")
    if "InternalIP" not in addresses or not port:
        raise ApiError(
            500,
            "InternalError",
            f"node {entry.obj['metadata']['name']} has no InternalIP or kubelet port in its status",
        )
    return f"https://{addresses['InternalIP']}:{port}/containerLogs/{metadata['namespace']}/{metadata['name']}/{container}"


async def proxy(request: web.Request, session: ClientSession, url: str) -> web.StreamResponse:
    """The kubelet's answer, passed on as it comes. ApiError 500 if the kubelet cannot be
    reached."""
    query = {name: request.query[name] for name in PASSED_ON if name in request.query}
    try:
        answer = await session.get(url, params=query, ssl=False)
    except ClientError as error:
        raise ApiError(
            500, "InternalError", f"the kubelet at {url} does not answer: {error}"
        ) from error
    async with answer:
        response = web.StreamResponse(
            status=answer.status,
            headers={"Content-Type": answer.headers.get("Content-Type", "text/plain")},
        )
        await response.prepare(request)
        with contextlib.suppress(ClientError):  # a kubelet that goes away ends the log
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        return response
