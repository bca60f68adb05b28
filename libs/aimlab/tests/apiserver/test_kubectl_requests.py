"""kubectl asks the double what it asked a real server, command by command, and gets answers of the same status and form (transcripts/kubectl.md)."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import pytest
from aiohttp import web
from multidict import CIMultiDict

from aimlab.apiserver import ApiServer

KUBECTL = Path(sys.executable).with_name("kubectl")
TRANSCRIPTS = Path(__file__).parent / "transcripts"
LINE = re.compile(r"- `(?P<method>\w+) (?P<path>\S+)` (?:sends (?P<sends>[^;]+); )?accepts (?P<accepts>.+) → (?P<status>\d+) [\w ]+, (?P<form>.+)")
OWN = [(r"hash=\w+", "hash=H"), (r"uid%3D[-\w]+", "uid%3DU"), (r"timeoutSeconds=\d+", "timeoutSeconds=N")]
WIDGET = """
apiVersion: lab.example.com/v1alpha1
kind: Widget
metadata: {name: kw, namespace: lab}
spec: {model: "m/a:1", size: SIZE}
"""
PROTOBUF = ("application/vnd.kubernetes.protobuf", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
NOT_ANSWERED = "/openapi/v2?timeout=32s"
"""Only in protobuf, which the double does not write; kubectl goes on without it."""


class Asked(NamedTuple):
    """A request and the form of its answer."""

    method: str
    path: str
    sends: str
    accepts: str
    status: int
    form: str

    def as_the_double(self) -> "Asked":
        """What is known to differ: JSON for protobuf, and no OpenAPI v2."""
        if self.path == NOT_ANSWERED:
            return self._replace(status=404, form="text/plain; charset=utf-8")
        return self._replace(form="application/json") if self.form in PROTOBUF else self


def recorded() -> Iterator[tuple[str, list[Asked]]]:
    """Each command and what it asked."""
    for block in (TRANSCRIPTS / "kubectl.md").read_text().split("\n## ")[1:]:
        command, *lines = block.strip().splitlines()
        found = [match for line in lines if line and (match := LINE.fullmatch(line))]
        assert len(found) == len([line for line in lines if line]), f"a line of {command} in kubectl.md is not understood"
        yield (
            command,
            [
                Asked(one["method"], own(one["path"]), one["sends"] or "", one["accepts"], int(one["status"]), one["form"]).as_the_double()
                for one in found
            ],
        )


def own(path: str) -> str:
    """With what differs from server to server and run to run made equal."""
    for pattern, placeholder in OWN:
        path = re.sub(pattern, placeholder, path)
    return re.sub(r"(?<=fieldSelector=)[^&]+", lambda found: "%2C".join(sorted(found[0].split("%2C"))), path)  # kubectl has them in no order


class Ear:
    """A proxy in front of the double that remembers what was asked."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.heard: list[Asked] = []
        self._session = session

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = CIMultiDict(request.headers)
        headers.popall("Host")
        async with self._session.request(request.method, request.rel_url, data=body or None, headers=headers) as answer:
            form = answer.headers["Content-Type"]
            sends = request.headers.get("Content-Type", "")
            self.heard.append(Asked(request.method, own(request.path_qs), sends, request.headers["Accept"], answer.status, form))
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": form})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response


@pytest.fixture
async def ear(server: ApiServer) -> AsyncIterator[tuple[Ear, str]]:
    """The proxy and its URL."""
    async with aiohttp.ClientSession(server.url, trust_env=False, auto_decompress=False) as session:
        listening, app = Ear(session), web.Application()
        app.router.add_route("*", "/{path:.*}", listening.pass_on)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield listening, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def run(url: str, command: str, folder: Path, cache: Path) -> None:
    """Runs it with an empty discovery cache, as it was recorded; that some fail is in the recording."""
    _, *args = command.split()
    argv = [str(KUBECTL), "--server", url, "--cache-dir", str(cache), *args]
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=folder, env={"HOME": str(folder), "PATH": ""}, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    await process.wait()


async def test_kubectl_asks_what_it_asks_a_real_server(ear: tuple[Ear, str], tmp_path: Path) -> None:
    listening, url = ear
    definition = msgspec.json.decode((TRANSCRIPTS / "discovery.jsonl").read_text().splitlines()[2])["request"]["body"]
    async with aiohttp.ClientSession(url, trust_env=False) as session:
        await session.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition)
        await session.post("/api/v1/namespaces", json={"metadata": {"name": "lab"}})
    wrong = {}
    for number, (command, expected) in enumerate(recorded()):
        (tmp_path / "w.yaml").write_text(WIDGET.replace("SIZE", f"{10 + number}Gi"))  # in the recording each apply had something to change
        listening.heard.clear()
        await run(url, command, tmp_path, tmp_path / f"cache{number}")
        wanted, heard = Counter(expected), Counter(listening.heard)
        if wanted != heard:
            wrong[number, command] = {"recorded": list((wanted - heard).elements()), "asked": list((heard - wanted).elements())}
    assert wrong == {}
