"""`s3://` against a real S3 server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aim_downloader.exit_codes import Failure, Outcome
from aim_downloader.retry import Limits
from aim_downloader.s3 import open_s3
from aim_downloader.uri import S3Uri

if TYPE_CHECKING:
    from conftest import Aim, Proxy, S3Server

MiB = 1024 * 1024
FILES = {"config.json": b"{}", "deep/er/weights.bin": os.urandom(200_000), "empty": b""}


@pytest.fixture(scope="module")
def model(store: S3Server) -> str:
    """A model in a bucket next to things that only look as if they belonged to it."""
    objects = {f"org/model/{path}": content for path, content in FILES.items()}
    asyncio.run(
        store.put(
            "models",
            objects
            | {
                "org/model-2/config.json": b"[]",
                "org/model.txt": b"text",
                "lone/key": b"alone",
            },
        )
    )
    return "s3://models/org/model"


@pytest.fixture(autouse=True)
def keys(aim: Aim, store: S3Server) -> None:
    aim.env = store.env()


def below(dest: Path) -> dict[str, bytes]:
    """Contents of all files in DEST but the manifest."""
    return {
        str(path.relative_to(dest)): path.read_bytes()
        for path in dest.rglob("*")
        if path.is_file() and path.name != ".aim-manifest.json"
    }


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_prefix_is_a_folder_and_never_the_beginning_of_a_name(
    model: str, aim: Aim, tmp_path: Path, slash: str
) -> None:
    done = await aim("fetch", model + slash, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["files"], done.result["bytes"]) == (0, 3, 200_002)
    assert below(tmp_path / "cache") == FILES


async def test_a_prefix_may_be_a_key(model: str, aim: Aim, tmp_path: Path) -> None:
    assert (await aim("fetch", "s3://models/lone/key", str(tmp_path / "cache"))).exit_code == 0
    assert below(tmp_path / "cache") == {"key": b"alone"}


async def test_a_second_run_fetches_only_a_changed_object(
    store: S3Server, aim: Aim, tmp_path: Path
) -> None:
    await store.put("changing", {"m/a": b"one", "m/b": b"same"})
    first = await aim("fetch", "s3://changing/m", str(tmp_path / "cache"))
    again = await aim("fetch", "s3://changing/m", str(tmp_path / "cache"))
    assert (again.message, again.result["revision"]) == (
        "this revision is already complete",
        first.result["revision"],
    )
    await store.put("changing", {"m/a": b"two"})
    changed = await aim("fetch", "s3://changing/m", str(tmp_path / "cache"))
    assert (changed.exit_code, changed.message) == (0, "fetched 1 of 2 files")
    assert changed.result["revision"] != first.result["revision"]
    assert below(tmp_path / "cache") == {"a": b"two", "b": b"same"}


async def test_multipart_content_is_checked_by_its_parts(
    store: S3Server, aim: Aim, tmp_path: Path
) -> None:
    await store.put("parts", {})
    content = [os.urandom(5 * MiB), os.urandom(5 * MiB), b"the last part is short"]
    async with store.client() as client:
        upload = (await client.create_multipart_upload(Bucket="parts", Key="m/big"))["UploadId"]
        parts = []
        for number, body in enumerate(content, 1):
            part = await client.upload_part(
                Bucket="parts", Key="m/big", UploadId=upload, PartNumber=number, Body=body
            )
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        await client.complete_multipart_upload(
            Bucket="parts", Key="m/big", UploadId=upload, MultipartUpload={"Parts": parts}
        )
    done = await aim("fetch", "s3://parts/m", str(tmp_path / "cache"), limits=Limits())
    assert (done.exit_code, below(tmp_path / "cache")) == (0, {"big": b"".join(content)})
    expected = json.loads((tmp_path / "cache" / ".aim-manifest.json").read_bytes())["files"][0][
        "says"
    ]
    assert expected["part_bytes"] == 5 * MiB
    assert expected["multipart_md5"].endswith("-3")


@pytest.mark.parametrize(
    ("uri", "code", "expected"),
    [
        pytest.param("s3://models/org/missing", 10, "nothing under that prefix", id="empty-prefix"),
        pytest.param("s3://models/org/mod", 10, "nothing under that prefix", id="half-a-name"),
        pytest.param("s3://no-such-bucket/org/model", 10, "no such bucket", id="no-bucket"),
        pytest.param("s3://Not_A_Bucket/org/model", 10, "is no bucket name", id="malformed"),
    ],
)
async def test_missing_objects_and_access_are_reported(
    model: str, aim: Aim, tmp_path: Path, uri: str, code: int, expected: str
) -> None:
    done = await aim("fetch", uri, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["outcome"]) == (code, "not_found")
    assert expected in done.message


async def test_wrong_keys_are_no_access_and_are_not_printed(
    model: str, aim: Aim, store: S3Server, tmp_path: Path
) -> None:
    aim.env = store.env(SECRET_ACCESS_KEY="guess-how")
    done = await aim("fetch", model, str(tmp_path / "cache"))
    assert (done.exit_code, done.result["outcome"]) == (11, "no_access")
    assert "SignatureDoesNotMatch" in done.message
    assert "guess-how" not in json.dumps(done.lines) + done.termination


async def test_the_first_store_that_lists_anything_is_used(
    model: str, aim: Aim, store: S3Server, tmp_path: Path
) -> None:
    away = {"ENDPOINT_URL": "http://127.0.0.1:9", "REGION": "eu-north-1"}
    aim.env = store.env(0, ACCESS_KEY_ID="stranger") | store.env(1, **away) | store.env(2)
    assert (await aim("fetch", model, str(tmp_path / "cache"))).exit_code == 0


async def test_stores_that_do_not_have_it_are_all_named(
    model: str, aim: Aim, store: S3Server, tmp_path: Path
) -> None:
    aim.env = store.env(0, SECRET_ACCESS_KEY="wrong") | store.env(1)
    done = await aim("fetch", "s3://models/missing", str(tmp_path / "cache"))
    assert done.exit_code == 10
    assert done.message.count(store.endpoint) == 2


@pytest.mark.parametrize("verb", [["size"], ["fetch"]])
async def test_a_store_that_is_away_is_worth_another_run(
    aim: Aim, store: S3Server, tmp_path: Path, verb: list[str]
) -> None:
    aim.env = store.env(ENDPOINT_URL="http://127.0.0.1:9")
    dest = [str(tmp_path / "cache")] if verb == ["fetch"] else []
    done = await aim(*verb, "s3://models/org/model", *dest)
    assert (done.exit_code, done.result["outcome"]) == (20, "transient")
    assert "http://127.0.0.1:9: no usable answer" in done.message


async def test_too_little_space_is_reported_with_both_numbers(
    model: str, aim: Aim, tmp_path: Path
) -> None:
    done = await aim("fetch", model, str(tmp_path / "cache"), free_bytes=lambda _: 1000)
    assert (done.exit_code, done.result["needed_bytes"], done.result["free_bytes"]) == (
        12,
        200_002,
        1000,
    )


async def test_content_with_a_wrong_digest_fails(
    aim: Aim, store: S3Server, proxy: Proxy, tmp_path: Path
) -> None:
    await store.put("falsified", {"m/notes.txt": b"the right words"})
    proxy.swaps = {b"the right words": b"the wrong words"}
    aim.env = store.env(ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}")
    done = await aim("fetch", "s3://falsified/m", str(tmp_path / "cache"))
    assert (done.exit_code, done.result["outcome"]) == (13, "checksum")
    assert "notes.txt: downloaded twice, and its md5" in done.message


async def test_an_object_rewritten_during_the_read_is_never_mixed(store: S3Server) -> None:
    await store.put("moving", {"m/a": b"before"})
    async with open_s3(S3Uri("moving", "m"), store.env(), Limits()) as source:
        listing = await source.listing()
        await store.put("moving", {"m/a": b"after!"})
        with pytest.raises(Failure, match="changed at the source") as caught:
            async with source.open_range(listing.files[0], 0, 6):
                pytest.fail("got bytes of another version")
    assert caught.value.outcome is Outcome.TRANSIENT


async def test_verify_finds_a_flipped_bit_a_missing_and_a_short_file(
    model: str, aim: Aim, tmp_path: Path
) -> None:
    dest = tmp_path / "cache"
    await aim("fetch", model, str(dest))
    whole = await aim("verify", model, str(dest))
    assert (whole.exit_code, whole.message) == (0, "all 3 files match the source")
    assert whole.lines[-2]["phase"] == "verifying"
    flipped = bytearray(FILES["deep/er/weights.bin"])
    flipped[100_000] ^= 1
    (dest / "deep/er/weights.bin").write_bytes(flipped)
    (dest / "empty").unlink()
    (dest / "config.json").write_bytes(b"{")
    broken = await aim("verify", model, str(dest))
    assert (broken.exit_code, broken.result["outcome"]) == (13, "checksum")
    for fault in (
        "weights.bin: sha256 is not the manifest's",
        "empty is missing",
        "config.json has 1 bytes, not 2",
    ):
        assert fault in broken.message


async def test_verify_reports_a_missing_manifest(model: str, aim: Aim, tmp_path: Path) -> None:
    done = await aim("verify", model, str(tmp_path / "cache"))
    assert (done.exit_code, "no manifest" in done.message) == (13, True)


# --- a separate process, killed in the middle


@asynccontextmanager
async def process(env: dict[str, str], *argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program as it runs in a pod; killed at the end if it still runs."""
    program = [sys.executable, "-m", "aim_downloader", *argv]
    child = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE, env=env)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def read_until(child: asyncio.subprocess.Process, got_bytes: int, times: int) -> None:
    """Return when this many progress lines have been printed."""
    assert child.stdout
    while times:
        line = json.loads(await child.stdout.readline())
        assert line["event"] == "progress", line
        times -= line["bytes"] >= got_bytes


@pytest.fixture(scope="module")
def big(store: S3Server) -> bytes:
    content = os.urandom(40 * MiB)
    asyncio.run(store.put("big", {"m/weights.bin": content, "m/config.json": b"{}"}))
    return content


@pytest.mark.parametrize(
    "how",
    [pytest.param(signal.SIGKILL, id="kill-9"), pytest.param(signal.SIGTERM, id="terminated")],
)
async def test_a_stopped_download_goes_on_where_it_was(
    big: bytes, store: S3Server, proxy: Proxy, tmp_path: Path, how: signal.Signals
) -> None:
    dest, last_range = tmp_path / "cache", f"bytes={32 * MiB}-{40 * MiB - 1}"
    env = store.env(ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}") | {
        "AIM_TERMINATION_LOG": str(tmp_path / "termination")
    }
    proxy.held = {last_range}
    async with process(env, "fetch", "s3://big/m", str(dest)) as child:
        await read_until(
            child, 32 * MiB, times=2
        )  # the second such line comes after the ranges were recorded
        child.send_signal(how)
        rest, _ = await child.communicate()
    if how == signal.SIGTERM:
        assert (child.returncode, json.loads(rest.splitlines()[-1])["outcome"]) == (20, "transient")
    proxy.held.clear()
    proxy.ranges.clear()
    async with process(env, "fetch", "s3://big/m", str(dest)) as child:
        out, _ = await child.communicate()
    first, *_, result = [json.loads(line) for line in out.splitlines()]
    assert (child.returncode, first["bytes"], result["outcome"]) == (0, 32 * MiB + 2, "done")
    assert proxy.ranges == [last_range]
    assert below(dest) == {"weights.bin": big, "config.json": b"{}"}
    assert json.loads((tmp_path / "termination").read_bytes()) == result


@pytest.mark.parametrize(
    "argv",
    [
        ["fetch"],
        ["fetch", "hf://org/model"],
        ["size", "hf://org/model", "/cache"],
        ["feed", "hf://org/model"],
    ],
)
async def test_a_wrong_command_line_ends_with_2(argv: list[str]) -> None:
    async with process({}, *argv) as child:
        out, _ = await child.communicate()
    assert (child.returncode, out) == (2, b"")
