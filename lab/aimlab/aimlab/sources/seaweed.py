"""A real S3 server on loopback for models: SeaweedFS from its wheel.

Everything it listens on is a free loopback port, everything it keeps is under its folder, and it
reports nothing to anyone.
"""

import asyncio
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import aioboto3
import msgspec
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from aimctl.local.ports import free_ports
from aimctl.local.processes import Program, start, stop

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

HOST = "127.0.0.1"
ROLES = ("master", "volume", "filer", "s3")
REGION = "us-east-1"
READY_WITHIN_S = 60.0
POLL_S = 0.1
MEMORY = {"GOMEMLIMIT": "200MiB", "GOGC": "50"}
"""For a laptop, where the environment has no others: it takes a third of the memory while files are
put in, and twice the CPU time."""
# a graceful stop takes 15 s; what was written is in the page cache by then, so killing it loses
# nothing
STOP_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials of an identity. `actions` are SeaweedFS' names: Admin, Read, Write, List,
    Tagging, each optionally `:bucket`."""

    access_key: str
    secret_key: str
    actions: tuple[str, ...] = ("Admin", "Read", "Write", "List", "Tagging")


@dataclass(frozen=True, slots=True)
class S3Server:
    endpoint_url: str
    admin: Keys

    async def put_folder(self, bucket: str, prefix: str, path: Path) -> dict[str, str]:
        """Uploads every file under `path` to `prefix`/<its path there>, making the bucket where it
        is missing; gives each one's sha256 by that path.

        Raises botocore's ClientError.
        """
        sums: dict[str, str] = {}
        async with self._client() as s3:
            with contextlib.suppress(
                s3.exceptions.BucketAlreadyOwnedByYou
            ):  # also where two make it at the same moment
                await s3.create_bucket(Bucket=bucket)
            for file in await asyncio.to_thread(_files_under, path):
                name = file.relative_to(path).as_posix()
                await s3.upload_file(str(file), bucket, f"{prefix.strip('/')}/{name}")
                sums[name] = await asyncio.to_thread(_sha256, file)
        return sums

    async def answers(self) -> bool:
        """Whether it can list and store: the gateway listens before the volumes are there."""
        try:
            async with self._client(attempts=1) as s3:
                if "aimlab-probe" not in {
                    found["Name"] for found in (await s3.list_buckets())["Buckets"]
                }:
                    await s3.create_bucket(Bucket="aimlab-probe")
                await s3.put_object(Bucket="aimlab-probe", Key="probe", Body=b"x")
                await s3.delete_object(Bucket="aimlab-probe", Key="probe")
                await s3.delete_bucket(Bucket="aimlab-probe")
        except (BotoCoreError, ClientError, OSError):
            return False
        return True

    def _client(self, attempts: int = 5) -> AbstractAsyncContextManager["S3Client"]:
        config = AioConfig(
            retries={"total_max_attempts": attempts},
            connect_timeout=2,
            read_timeout=60,
            proxies={},
            s3={"addressing_style": "path"},
        )
        return _session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=self.admin.access_key,
            aws_secret_access_key=self.admin.secret_key,
            config=config,
        )


@cache
def _session() -> aioboto3.Session:
    """Parses botocore's descriptions of the API once, not for each client."""
    return aioboto3.Session()


@asynccontextmanager
async def seaweed(
    folder: Path, admin: Keys, *, others: Mapping[str, Keys] | None = None
) -> AsyncIterator[S3Server]:
    """Runs the server for as long as the block lasts; `others` are further identities by name.
    Raises RuntimeError where it does not come up."""
    identities = await asyncio.to_thread(_lay_out, folder, {"admin": admin} | dict(others or {}))
    ports = free_ports(8)
    log = folder / "weed.log"
    process = await start(
        Program(_command(folder, identities, ports), log, env=MEMORY | os.environ, cwd=folder)
    )
    try:
        server = S3Server(f"http://{HOST}:{ports[-2]}", admin)
        give_up = time.monotonic() + READY_WITHIN_S
        while not await server.answers():
            if process.returncode is not None or time.monotonic() > give_up:
                raise RuntimeError(f"SeaweedFS did not come up; its log is {log}")
            await asyncio.sleep(POLL_S)
        yield server
    finally:
        await stop(process, grace_s=STOP_GRACE_S)
        for role, port in product(ROLES, ports):
            Path(f"/tmp/seaweedfs-{role}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: ASYNC240, S108 (it leaves them there when killed)


def _command(folder: Path, identities: Path, ports: list[int]) -> list[str]:
    """One process with master, volumes, filer and S3 gateway, each with an http and a gRPC port;
    small volumes, and no wait for other masters."""
    roles = [f"-{role}={port}" for role, port in zip(_PORT_FLAGS, ports, strict=True)]
    quick = [
        "-master.electionTimeout=1s",
        "-volume.preStopSeconds=0",
        "-volume.max=0",
        "-master.volumeSizeLimitMB=64",
    ]
    quiet = [
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-filer.localSocket=filer.sock",
        "-s3.localSocket=s3.sock",
    ]
    where = [
        f"-dir={folder / 'data'}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-filer=true",
        "-s3",
        f"-s3.config={identities}",
    ]
    return [
        str(Path(sys.executable).with_name("weed")),
        "-logtostderr=true",
        "server",
        *where,
        *roles,
        *quick,
        *quiet,
    ]


_PORT_FLAGS = [f"{role}.port{kind}" for role in ROLES for kind in ("", ".grpc")]


def _identities(keys: Mapping[str, Keys]) -> dict[str, list[dict[str, object]]]:
    def identity(name: str, one: Keys) -> dict[str, object]:
        return {
            "name": name,
            "credentials": [{"accessKey": one.access_key, "secretKey": one.secret_key}],
            "actions": list(one.actions),
        }

    return {"identities": [identity(name, one) for name, one in keys.items()]}


def _lay_out(folder: Path, identities: Mapping[str, Keys]) -> Path:
    """Makes the folders and the file of identities, whose path is given back."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    path = folder / "identities.json"
    path.write_bytes(msgspec.json.encode(_identities(identities)))
    return path


def _files_under(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
