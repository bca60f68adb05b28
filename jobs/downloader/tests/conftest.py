"""What the tests run against: a real S3 server (SeaweedFS), the lab's hub, and a proxy that can
hold back answers. Loopback only."""

from __future__ import annotations

import asyncio
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
from botocore.exceptions import BotoCoreError, ClientError

from aim_downloader import disk
from aim_downloader.main import parse, run
from aim_downloader.report import Reporter, secrets_in
from aim_downloader.retry import Limits
from aimlab.sources.hub import Hub
from aimlab.sources.hub import hub as run_hub

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
    """Runs a command line with a separate environment."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    async def __call__(
        self,
        *argv: str,
        limits: Limits = SMALL,
        free_bytes: Callable[[Path], int | None] = disk.free_bytes,
    ) -> Run:
        out, place = io.StringIO(), self.folder / "termination"
        reporter = Reporter(
            out, secrets=secrets_in(self.env), termination_log=place, make_termination_log=True
        )
        code = await run(parse(argv), self.env, reporter, limits, free_bytes)
        return Run(
            code, [json.loads(line) for line in out.getvalue().splitlines()], place.read_text()
        )


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
        values = {
            "ENDPOINT_URL": self.endpoint,
            "ACCESS_KEY_ID": self.access_key,
            "SECRET_ACCESS_KEY": self.secret_key,
        } | instead
        return {f"AIM_S3_{number}_{name}": value for name, value in values.items()}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        config = AioConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        session = aioboto3.Session(self.access_key, self.secret_key, region_name="us-east-1")
        async with session.client("s3", endpoint_url=self.endpoint, config=config) as client:
            yield client

    async def put(self, bucket: str, files: dict[str, bytes]) -> None:
        async with self.client() as client:
            with suppress(
                client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
            ):
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
    """`weed server` with S3, up in about four seconds. Killed at the end: asked politely it
    takes fifteen seconds, and its data is thrown away."""
    names = [
        f"{part}.port{kind}"
        for part in ("master", "volume", "filer", "s3")
        for kind in ("", ".grpc")
    ]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    server = S3Server(ports["s3.port"])
    credentials = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    identities = {
        "identities": [
            {
                "name": "test",
                "credentials": credentials,
                "actions": ["Admin", "Read", "Write", "List"],
            }
        ]
    }
    (folder / "identities.json").write_text(json.dumps(identities))
    (folder / "data").mkdir()
    # The Iceberg and Lance listeners have fixed ports and end the whole server when a second one is
    # running.
    fixed = (
        "-s3 -iam=false -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false"
        " -master.volumeSizeLimitMB=256 -volume.max=200"
    )
    args = [
        "server",
        *fixed.split(),
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}/data",
        f"-s3.config={folder}/identities.json",
    ]
    args += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("weed"), *args],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
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


# --- a proxy that watches, holds back and falsifies


@dataclass
class Proxy:
    """Passes TCP on to a server on loopback and notes the Range of each request.

    Answers to the ranges in `held` are held back; in the others what is in `swaps` becomes
    something else of the same length.
    """

    target_port: int
    port: int = 0
    ranges: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    swaps: dict[bytes, bytes] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(
            "127.0.0.1", self.target_port
        )
        flowing = asyncio.Event()
        flowing.set()

        async def requests() -> None:
            while data := await reader.read(65536):
                requested = re.findall(rb"(?i)\r\nrange: (bytes=[0-9-]+)", data)
                self.ranges += [each.decode() for each in requested]
                if self.held.intersection(self.ranges[-len(requested) :] if requested else []):
                    flowing.clear()
                upstream_writer.write(data)
                await upstream_writer.drain()
            upstream_writer.close()

        async def answers() -> None:
            while data := await upstream_reader.read(65536):
                await flowing.wait()
                for right, wrong in self.swaps.items():
                    data = data.replace(right, wrong)
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


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with run_hub() as running:
        yield running
