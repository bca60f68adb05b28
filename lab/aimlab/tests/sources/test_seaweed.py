"""The S3 server of the lab takes a folder and gives it back to who has the keys."""

import hashlib
from pathlib import Path

import aioboto3
import pytest
from botocore.exceptions import ClientError

from aimlab.sources.seaweed import REGION, Keys, S3Server, seaweed

ADMIN = Keys("admin", "admin-secret")
READER = Keys("reader", "reader-secret", ("Read:models", "List:models"))


async def read(server: S3Server, keys: Keys, name: str) -> bytes:
    session = aioboto3.Session(
        aws_access_key_id=keys.access_key, aws_secret_access_key=keys.secret_key, region_name=REGION
    )
    async with session.client("s3", endpoint_url=server.endpoint_url) as s3:
        answer = await s3.get_object(Bucket="models", Key=name)
        return await answer["Body"].read()


async def test_a_folder_is_stored_and_read_with_the_right_keys_only(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"a" * 9_000_000)
    (folder / "sub" / "b.txt").write_bytes(b"b")
    async with seaweed(tmp_path / "s3", ADMIN, others={"reader": READER}) as server:
        sums = await server.put_folder("models", "org/model", folder)
        assert sums == {
            "a.bin": hashlib.sha256(b"a" * 9_000_000).hexdigest(),
            "sub/b.txt": hashlib.sha256(b"b").hexdigest(),
        }
        assert await read(server, READER, "org/model/a.bin") == b"a" * 9_000_000
        with pytest.raises(ClientError, match=r"403|InvalidAccessKeyId|does not exist"):
            await read(server, Keys("unknown", "nothing"), "org/model/a.bin")
