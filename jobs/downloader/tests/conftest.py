"""What the tests run against: a real S3 server (SeaweedFS), a small hub, and a proxy that can hold back answers. Loopback only."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aioboto3
import pytest
from aiobotocore.config import AioConfig
from aiohttp import web
from botocore.exceptions import BotoCoreError, ClientError

from aim_downloader import disk
from aim_downloader.main import parse, run
from aim_downloader.report import Reporter, secrets_in
from aim_downloader.retry import Limits

KiB = 1024
SMALL = Limits(range_bytes=64 * KiB, write_bytes=16 * KiB, backoff_s=0.01, stall_s=5.0)
"""Limits under which a few hundred KiB are many ranges and tries follow at once."""


# --- running the program in this process


@dataclass(frozen=True)
class Run:
    """What a run printed."""

    exit_code: int
    lines: list[dict[str, Any]]
    termination: str

    @property
    def result(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def message(self) -> str:
        return str(self.result["message"])


@dataclass
class Aim:
    """Runs a command line with an environment of its own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    async def __call__(self, *argv: str, limits: Limits = SMALL, free_bytes: Callable[[Path], int] = disk.free_bytes) -> Run:
        out, place = io.StringIO(), self.folder / "termination"
        reporter = Reporter(out, secrets=secrets_in(self.env), termination_log=place, make_termination_log=True)
        code = await run(parse(argv), self.env, reporter, limits, free_bytes)
        return Run(code, [json.loads(line) for line in out.getvalue().splitlines()], place.read_text())


@pytest.fixture
def aim(tmp_path: Path) -> Aim:
    return Aim(tmp_path)


# --- SeaweedFS


@dataclass(frozen=True)
class S3Server:
    """A running S3 server; `env` makes it the downloader's only store."""

    port: int
    access_key: str = "test-access-key"
    secret_key: str = "test-secret-key"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def env(self, number: int = 0, **instead: str) -> dict[str, str]:
        values = {"ENDPOINT_URL": self.endpoint, "ACCESS_KEY_ID": self.access_key, "SECRET_ACCESS_KEY": self.secret_key} | instead
        return {f"AIM_S3_{number}_{name}": value for name, value in values.items()}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        config = AioConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        session = aioboto3.Session(self.access_key, self.secret_key, region_name="us-east-1")
        async with session.client("s3", endpoint_url=self.endpoint, config=config) as client:
            yield client

    async def put(self, bucket: str, files: dict[str, bytes]) -> None:
        async with self.client() as client:
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                await client.create_bucket(Bucket=bucket)
            for key, content in files.items():
                await client.put_object(Bucket=bucket, Key=key, Body=content)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """`weed server` with S3, up in about four seconds. Killed at the end: asked politely it takes fifteen seconds, and its data is thrown away."""
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    server = S3Server(ports["s3.port"])
    credentials = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    identities = {"identities": [{"name": "test", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}]}
    (folder / "identities.json").write_text(json.dumps(identities))
    (folder / "data").mkdir()
    # The Iceberg and Lance listeners have fixed ports and end the whole server when a second one is running.
    fixed = "-s3 -iam=false -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false -master.volumeSizeLimitMB=256 -volume.max=200"
    args = ["server", *fixed.split(), "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}/data", f"-s3.config={folder}/identities.json"]
    args += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen([Path(sys.executable).with_name("weed"), *args], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        asyncio.run(_until_it_stores(server, process, folder / "weed.log"))
        yield server
    finally:
        process.kill()
        process.wait()


async def _until_it_stores(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            return await server.put("warmup", {"ready": b"yes"})
        except (BotoCoreError, ClientError):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"weed did not come up, see {log}") from None
            await asyncio.sleep(0.1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("weed")) as server:
        yield server


# --- a proxy that watches and holds back


@dataclass
class Proxy:
    """Passes TCP on to a server on loopback, notes the Range of each request, and holds back every answer to the ranges in `held`."""

    target_port: int
    port: int = 0
    ranges: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        flowing = asyncio.Event()
        flowing.set()

        async def requests() -> None:
            while data := await reader.read(65536):
                asked = re.findall(rb"(?i)\r\nrange: (bytes=[0-9-]+)", data)
                self.ranges += [each.decode() for each in asked]
                if self.held.intersection(self.ranges[-len(asked) :] if asked else []):
                    flowing.clear()
                upstream_writer.write(data)
                await upstream_writer.drain()
            upstream_writer.close()

        async def answers() -> None:
            while data := await upstream_reader.read(65536):
                await flowing.wait()
                writer.write(data)
                await writer.drain()
            writer.close()

        with suppress(ConnectionError):
            await asyncio.gather(requests(), answers())


@pytest.fixture
async def proxy(store: S3Server) -> AsyncIterator[Proxy]:
    proxy = Proxy(store.port)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- a hub


@dataclass
class Hub:
    """Enough of the hub for huggingface_hub: model info with files metadata, and resolve, with large files on a content network of its own port.

    `refusals` are answered to the next requests instead, in order: a status and headers.
    """

    endpoint: str = ""
    network: str = ""
    commit: str = "c" * 40
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    gated: bool = False
    token: str = ""
    stated_sha256: dict[str, str] = field(default_factory=dict)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def refuses(self, request: web.Request) -> web.Response | None:
        self.asked.append(f"{request.path} {request.headers.get('Range', '')}".strip())
        if self.refusals:
            status, headers = self.refusals.pop(0)
            return web.Response(status=status, headers=headers)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, headers={"X-Error-Message": "Invalid username or password."})
        if "org/model" not in request.path:
            return web.Response(status=404, headers={"X-Error-Code": "RepoNotFound"})
        return None

    async def info(self, request: web.Request) -> web.Response:
        if refusal := self.refuses(request):
            return refusal
        if request.match_info.get("revision", "main") not in {"main", self.commit}:
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        assert request.query["blobs"], "without files metadata there are no sizes"
        return web.json_response({"id": "org/model", "sha": self.commit, "siblings": [self.sibling(path) for path in self.files]})

    def sibling(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        facts: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob_id}
        if path in self.large:
            sha256 = self.stated_sha256.get(path, hashlib.sha256(content).hexdigest())
            facts["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 135}
        return facts

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        if refusal := self.refuses(request):
            return refusal
        if self.gated:
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        path = request.match_info["path"]
        if request.match_info["revision"] != self.commit or path not in self.files:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if path in self.large:
            return web.Response(status=302, headers={"Location": f"{self.network}/blobs/{path}?signature=sesame"})
        return self.content(request, path)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.path} {request.headers.get('Range', '')}")
        if "Authorization" in request.headers or request.query.get("signature") != "sesame":
            return web.Response(status=400)
        return self.content(request, request.match_info["path"])

    def content(self, request: web.Request, path: str) -> web.Response:
        part = request.http_range
        body = self.files[path][part]
        return web.Response(body=body, status=206, headers={"Content-Range": f"bytes {part.start}-{part.start + len(body) - 1}/*"})


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub()
    home, network = web.Application(), web.Application()
    home.router.add_get("/api/models/{owner}/{name}", hub.info)
    home.router.add_get("/api/models/{owner}/{name}/revision/{revision}", hub.info)
    home.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", hub.resolve)
    network.router.add_get("/blobs/{path:.+}", hub.blob)
    runners = [web.AppRunner(home), web.AppRunner(network)]
    try:
        addresses = []
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            addresses.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        hub.endpoint, hub.network = addresses
        yield hub
    finally:
        for runner in runners:
            await runner.cleanup()
