"""Serves container logs as a kubelet does, on `/containerLogs/<namespace>/<pod>/<container>` with
follow, tailLines, limitBytes and previous.

https, since kube-apiserver speaks nothing else to a kubelet; on loopback, without authentication.
"""

import asyncio
from pathlib import Path

from aiohttp import web

from aimlab.node.kubelet import Kubelet
from aimlab.node.worker import PodWorker

CHUNK_BYTES = 1 << 16
POLL_S = 0.1


def make_app(kubelet: Kubelet) -> web.Application:
    async def container_logs(request: web.Request) -> web.StreamResponse:
        return await _serve(request, kubelet)

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", container_logs)
    return app


async def _serve(request: web.Request, kubelet: Kubelet) -> web.StreamResponse:
    where, query = request.match_info, request.query
    worker = kubelet.worker_of(where["namespace"], where["pod"])
    path = (
        worker.log_of(where["container"], previous=query.get("previous") == "true")
        if worker is not None
        else None
    )
    if worker is None or path is None:
        return web.Response(
            status=404,
            text=(
                f'container "{where["container"]}" in pod "{where["pod"]}" is waiting to start or'
                " not here\n"
            ),
        )
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    left = int(query["limitBytes"]) if "limitBytes" in query else None
    follow = query.get("follow") == "true"
    await _send(
        response,
        path,
        _start_of(path, query.get("tailLines")),
        left,
        worker if follow else None,
        where["container"],
    )
    await response.write_eof()
    return response


async def _send(
    response: web.StreamResponse,
    path: Path,
    start: int,
    left: int | None,
    live: PodWorker | None,
    container: str,
) -> None:
    """From `start` on, at most `left` bytes; while `live` runs the container, what is added too."""
    with path.open("rb") as log:
        log.seek(start)
        while left is None or left > 0:
            may_grow = live is not None and live.is_running(container)
            chunk = log.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if chunk:
                await response.write(chunk)
                left = left if left is None else left - len(chunk)
            elif may_grow:
                await asyncio.sleep(POLL_S)
            else:
                return


def _start_of(path: Path, tail_lines: str | None) -> int:
    """The offset at which the last `tail_lines` lines begin."""
    if tail_lines is None:
        return 0
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    tail = lines[-int(tail_lines) :] if int(tail_lines) > 0 else []
    return len(content) - sum(map(len, tail))
