"""Stores and hubs under a private CA: real TLS on loopback, its certificates made when it
starts."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aim_downloader.trust import VARIABLES, tls_context
from aimlab.certificates import Certificate, make_certificate
from aimlab.sources.dialects import Dialect, dialect_store
from aimlab.sources.hub import Hub

if TYPE_CHECKING:
    from conftest import Aim, S3Server

FILES = {"config.json": b"{}", "weights.bin": bytes(range(256)) * 1000}
OBJECTS = {f"org/model/{path}": content for path, content in FILES.items()}
URI = {"hub": "hf://org/model", "s3": "s3://models/org/model"}
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
EVERY_KEY = {
    "AIM_S3_0_ACCESS_KEY_ID": "an-access-key",
    "AIM_S3_0_SECRET_ACCESS_KEY": "a-secret-key",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("authority"), "our authority")


@pytest.fixture
def server(authority: Certificate, tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "server", authority=authority)


@asynccontextmanager
async def in_tls(port: int, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """A front that takes TLS off and passes bytes on to a port of loopback; its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(
            pump(reader, inner_writer), pump(inner_reader, writer), return_exceptions=True
        )

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    front = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"https://127.0.0.1:{front.sockets[0].getsockname()[1]}"
    finally:
        front.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def source_in_tls(
    kind: str, hub: Hub, certificate: Certificate
) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """A store or a hub with the files, its content network in TLS too: its address and the
    environment that names it."""
    if kind == "s3":
        async with dialect_store(Dialect(), OBJECTS, tls=certificate.context()) as store:
            yield store.endpoint_url, EVERY_KEY | {"AIM_S3_0_ENDPOINT_URL": store.endpoint_url}
        return
    hub.put_model("org/model", FILES)
    port: Callable[[str], int] = lambda address: int(address.rpartition(":")[2])  # noqa: E731
    async with (
        in_tls(port(hub.endpoint), certificate.context()) as endpoint,
        in_tls(port(hub.network), certificate.context()) as network,
    ):
        hub.network = network
        yield endpoint, {"HF_ENDPOINT": endpoint}


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("kind", URI)
async def test_a_bundle_in_any_variable_is_enough(
    aim: Aim, hub: Hub, server: Certificate, authority: Certificate, kind: str, variable: str
) -> None:
    async with source_in_tls(kind, hub, server) as (_, env):
        aim.env = env | {variable: str(authority.certificate)}
        done = await aim("fetch", URI[kind], str(aim.folder / "cache"))
    assert done.exit_code == 0, done.message
    assert {path: (aim.folder / "cache" / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize("kind", URI)
async def test_a_process_takes_the_bundle_from_its_environment(
    hub: Hub, server: Certificate, authority: Certificate, tmp_path: Path, kind: str
) -> None:
    """As in a pod, where the libraries read the same variables themselves."""
    async with source_in_tls(kind, hub, server) as (_, env):
        bundle = dict.fromkeys(VARIABLES, str(authority.certificate))
        program = [
            sys.executable,
            "-m",
            "aim_downloader",
            "fetch",
            URI[kind],
            str(tmp_path / "cache"),
        ]
        child = await asyncio.create_subprocess_exec(
            *program, stdout=asyncio.subprocess.PIPE, env=env | bundle
        )
        out, _ = await child.communicate()
    assert child.returncode == 0, json.loads(out.splitlines()[-1])["message"]


async def test_a_real_store_behind_a_tls_front_is_accepted(
    aim: Aim, store: S3Server, server: Certificate, authority: Certificate
) -> None:
    await store.put("private", {"m/config.json": b"{}"})
    async with in_tls(store.port, server.context()) as endpoint:
        aim.env = store.env(ENDPOINT_URL=endpoint) | {"AWS_CA_BUNDLE": str(authority.certificate)}
        assert (await aim("fetch", "s3://private/m", str(aim.folder / "cache"))).exit_code == 0


UNTRUSTED = {
    "unknown-authority": (
        {},
        False,
        ("unable to get local issuer certificate", "add the CA that signed it", *VARIABLES),
    ),
    "expired": (
        {"from_": YESTERDAY - timedelta(days=9), "until": YESTERDAY},
        True,
        ("certificate has expired", "renew it"),
    ),
    "not-yet-valid": (
        {"from_": datetime.now(UTC) + timedelta(days=1)},
        True,
        ("not yet valid", "correct the clock"),
    ),
    "other-name": (
        {"hosts": ["store.example.org"]},
        True,
        ("not valid for '127.0.0.1'", "use a host name that it covers"),
    ),
}


@pytest.mark.parametrize("name", UNTRUSTED)
@pytest.mark.parametrize("kind", URI)
async def test_a_certificate_that_does_not_verify_is_named(
    aim: Aim, hub: Hub, authority: Certificate, tmp_path: Path, kind: str, name: str
) -> None:
    make, with_bundle, text = UNTRUSTED[name]
    certificate = make_certificate(tmp_path, "odd", authority=authority, **make)  # type: ignore[arg-type]
    async with source_in_tls(kind, hub, certificate) as (endpoint, env):
        aim.env = env | ({"SSL_CERT_FILE": str(authority.certificate)} if with_bundle else {})
        done = await aim("fetch", URI[kind], str(aim.folder / "cache"))
    assert done.exit_code == 20
    assert [
        word
        for word in (endpoint, "its certificate does not verify", *text)
        if word not in done.message
    ] == []
    assert "gave up after" not in done.message


async def test_a_content_network_that_does_not_verify_is_named(
    aim: Aim, hub: Hub, server: Certificate
) -> None:
    hub.put_model("org/model", FILES)
    async with in_tls(int(hub.network.rpartition(":")[2]), server.context()) as network:
        hub.network, aim.env = network, {"HF_ENDPOINT": hub.endpoint}
        done = await aim("fetch", URI["hub"], str(aim.folder / "cache"))
    assert (done.exit_code, "its certificate does not verify" in done.message) == (20, True)
    assert "127.0.0.1" in done.message


async def test_the_next_store_is_tried_after_an_untrusted_one(
    aim: Aim, hub: Hub, server: Certificate
) -> None:
    async with (
        source_in_tls("s3", hub, server) as (_, env),
        dialect_store(Dialect(), OBJECTS) as second,
    ):
        keys = {name.replace("_0_", "_1_"): value for name, value in EVERY_KEY.items()}
        aim.env = env | keys | {"AIM_S3_1_ENDPOINT_URL": second.endpoint_url}
        assert (await aim("size", URI["s3"])).exit_code == 0


async def test_a_plain_port_under_an_https_address_is_named(aim: Aim) -> None:
    async with dialect_store(Dialect(), OBJECTS) as store:
        aim.env = EVERY_KEY | {
            "AIM_S3_0_ENDPOINT_URL": store.endpoint_url.replace("http:", "https:")
        }
        done = await aim("size", URI["s3"])
    assert (
        done.exit_code,
        "does not speak TLS at that port; correct endpointUrl" in done.message,
    ) == (20, True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(None, "which cannot be read (No such file or directory)", id="missing"),
        pytest.param("", "which holds no certificate in PEM form", id="empty"),
        pytest.param(
            "not a certificate", "which holds no certificate in PEM form", id="no-certificate"
        ),
    ],
)
@pytest.mark.parametrize("uri", URI.values())
async def test_a_bundle_that_cannot_be_used_is_named(
    aim: Aim, tmp_path: Path, uri: str, content: str | None, text: str
) -> None:
    bundle = tmp_path / "ca.crt"
    if content is not None:
        bundle.write_text(content)
    aim.env = {"REQUESTS_CA_BUNDLE": str(bundle)}
    done = await aim("size", uri)
    assert (done.exit_code, done.message) == (
        20,
        f"REQUESTS_CA_BUNDLE names {bundle}, {text}: correct the CA bundle",
    )


def test_a_private_authority_counts_beside_the_public_ones(authority: Certificate) -> None:
    public, both = tls_context({}), tls_context({"SSL_CERT_FILE": str(authority.certificate)})
    assert len(public.get_ca_certs()) > 50
    assert len(both.get_ca_certs()) == len(public.get_ca_certs()) + 1
