"""Plain requests: what they are used for, and the bytes and digests that come of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_downloader import disk
from aim_downloader.assembly import Assembly
from aim_downloader.checksums import Digests
from aim_downloader.disk import Part
from aim_downloader.source import ExpectedChecksums, SourceFile
from aimlab.sources.dialects import Dialect, Rejection, dialect_store

if TYPE_CHECKING:
    from conftest import Aim

CONTENT = os.urandom(10_000)
OBJECTS = {"m/small": b"s" * 1000, "m/large": os.urandom(200_000)}


def stores(aim: Aim, endpoint_url: str) -> None:
    aim.env = {
        "AIM_S3_0_ENDPOINT_URL": endpoint_url,
        "AIM_S3_0_ACCESS_KEY_ID": "key",
        "AIM_S3_0_SECRET_ACCESS_KEY": "secret",
    }


async def requests_of(aim: Aim, dialect: Dialect) -> list[str]:
    """Method and path of each request for an object of a fetch that succeeds."""
    async with dialect_store(dialect, OBJECTS) as store:
        stores(aim, store.endpoint_url)
        done = await aim("fetch", "s3://models/m", str(aim.folder / "cache"))
        assert done.exit_code == 0, done.message
    for key, content in OBJECTS.items():
        assert (aim.folder / "cache" / key.removeprefix("m/")).read_bytes() == content
    split = [request.split() for request in store.requests]
    return sorted(f"{method} {path}" for method, _, path in split if path.startswith("/models/m/"))


async def test_a_small_file_costs_one_request(aim: Aim) -> None:
    assert (await requests_of(aim, Dialect())).count("GET /models/m/small") == 1
    assert "HEAD /models/m/small" not in await requests_of(aim, Dialect())


@pytest.mark.parametrize(
    "dialect",
    [
        Dialect(answer_etag='"another"'),
        Dialect(omits_headers=frozenset({"ETag"})),
        Dialect(omits_headers=frozenset({"Content-Length"})),
        Dialect(headers={"Content-Encoding": "aws-chunked"}),
        Dialect(rejects={"conditional": Rejection(501, "NotImplemented", "no")}),
    ],
    ids=["another-etag", "no-etag", "no-length", "encoded", "no-conditions"],
)
async def test_the_full_client_decides_about_any_other_answer(aim: Aim, dialect: Dialect) -> None:
    assert "HEAD /models/m/small" in await requests_of(aim, dialect)


async def test_wrong_content_is_not_placed_by_a_plain_request(aim: Aim) -> None:
    async with dialect_store(Dialect(etag=f'"{"0" * 32}"'), OBJECTS) as store:
        stores(aim, store.endpoint_url)
        done = await aim("fetch", "s3://models/m", str(aim.folder / "cache"))
    assert (done.exit_code, done.result["outcome"]) == (13, "checksum")
    assert not (aim.folder / "cache" / "small").exists()


def multipart(content: bytes, part_bytes: int) -> str:
    """As the S3 user guide defines it."""
    parts = [content[at : at + part_bytes] for at in range(0, len(content), part_bytes)]
    digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.permutations(range(5)), st.sets(st.integers(0, 4)), st.sampled_from([500, 1000, 1500, 4000])
)
def test_digests_do_not_depend_on_the_order_of_arrival(
    tmp_path: Path, order: list[int], earlier: set[int], part_bytes: int
) -> None:
    """Some ranges are on disk from an earlier run, the others arrive in any order."""
    file = SourceFile("weights", len(CONTENT), "v1", "key")
    disk.prepare(tmp_path)
    part = Part(tmp_path, file, 2000)
    part.finished.clear()
    for index in earlier:
        rng = part.ranges[index]
        part.write(rng.start, CONTENT[rng.start : rng.end])
        part.finish(rng)
    expected = ExpectedChecksums(
        multipart_md5=multipart(CONTENT, part_bytes),
        part_bytes=part_bytes,
        md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
    )
    positions = [0]
    assembly = Assembly(part, Digests(len(CONTENT), expected, 2000), positions.append)
    for index in order:
        rng = part.ranges[index]
        for at in range(rng.start, 0 if index in earlier else rng.end, 700):
            assembly.take(rng, CONTENT[at : min(at + 700, rng.end)])
    assembly.advance()
    part.close()
    assert assembly.digests.mismatches() == []
    assert assembly.digests.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert max(positions) == len(CONTENT)


def test_memory_is_released_once_every_digest_has_it(tmp_path: Path) -> None:
    file = SourceFile("weights", 2000, "v1", "key")
    disk.prepare(tmp_path)
    part = Part(tmp_path, file, 1000)
    assembly = Assembly(part, Digests(2000, ExpectedChecksums(md5="0" * 32)))
    released: list[int] = []
    assembly.take(part.ranges[1], CONTENT[1000:2000], lambda: released.append(1))
    assert released == []
    assembly.take(part.ranges[0], CONTENT[:1000], lambda: released.append(0))
    part.close()
    assert released == [0, 1]
