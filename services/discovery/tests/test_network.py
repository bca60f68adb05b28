"""Each cause for an unreachable registry has a distinct message, on real connections with real
certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from aim_discovery.image import parse_image
from aim_discovery.keyring import Credentials
from aim_discovery.network import trouble
from aim_discovery.registry import Registries, RegistryProblem
from aim_discovery.settings import DiscoverySettings
from aimctl.local.ports import free_ports
from aimlab.certificates import Certificate, make_certificate
from aimlab.sources.registry import Registry

HERE = "0.0.0.0"  # noqa: S104 (to connect to)
"""An address of this machine that does not count as loopback, so that https is spoken."""
REPOSITORY = "aim/tiny"
LABELS = {"com.amd.aim.title": "Tiny"}
DAY = timedelta(days=1)


@asynccontextmanager
async def registry(
    tls: ssl.SSLContext | None, users: dict[str, str] | None = None
) -> AsyncIterator[Registry]:
    async with Registry(users, tls=tls, name=HERE) as served:
        served.put_image(REPOSITORY, "1", LABELS)
        yield served


async def labels(host: str, ca_bundle: Path | None = None, *credentials: Credentials) -> object:
    of = replace(parse_image(f"{host}/{REPOSITORY}"), reference="1")
    async with Registries(
        image_s=5, ca_bundle=None if ca_bundle is None else str(ca_bundle)
    ) as registries:
        return (await registries.config_of(of, credentials)).labels


async def explain(host: str, ca_bundle: Path | None = None) -> tuple[str, str]:
    """Message and way out."""
    with pytest.raises(RegistryProblem) as raised:
        await labels(host, ca_bundle)
    assert raised.value.reason == "RegistryUnreachable"
    return str(raised.value), raised.value.way_out


@pytest.fixture
def ours(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "ours", hosts=[HERE])


async def test_a_registry_whose_ca_is_in_the_bundle_is_read(ours: Certificate) -> None:
    async with registry(ours.context(), {"ada": "countess"}) as served:
        assert await labels(served.host, ours.certificate, Credentials("ada", "countess")) == LABELS


async def test_the_bundle_is_added_to_the_systems_roots(
    ours: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's roots are those of SSL_CERT_FILE."""
    other = make_certificate(tmp_path, "other", hosts=[HERE])
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.certificate))
    async with registry(ours.context()) as served:
        assert await labels(served.host, other.certificate) == LABELS


@pytest.mark.parametrize(
    ("make", "trusted", "text", "way_out"),
    [
        pytest.param(
            {},
            False,
            "does not verify: self-signed certificate",
            "set AIM_CA_BUNDLE",
            id="unknown-ca",
        ),
        pytest.param(
            {"hosts": ["elsewhere.example"]},
            True,
            "is for another address",
            "correct spec.image",
            id="another-name",
        ),
        pytest.param(
            {"from_": datetime.now(UTC) - 9 * DAY, "until": datetime.now(UTC) - DAY},
            True,
            "has expired",
            "renew it",
            id="expired",
        ),
        pytest.param(
            {"from_": datetime.now(UTC) + DAY},
            True,
            "is not valid yet",
            "clocks",
            id="not-yet-valid",
        ),
    ],
)
async def test_an_invalid_certificate_is_named_with_its_server(
    tmp_path: Path, make: dict[str, object], trusted: bool, text: str, way_out: str
) -> None:
    certificate = make_certificate(tmp_path, "odd", **{"hosts": [HERE]} | make)  # type: ignore[arg-type]
    async with registry(certificate.context()) as served:
        message, out = await explain(served.host, certificate.certificate if trusted else None)
        assert message.startswith(f"the certificate of {served.host} {text}")
        assert way_out in out


async def test_a_registry_that_speaks_http_instead_of_https(ours: Certificate) -> None:
    async with registry(None) as served:
        message, out = await explain(served.host)
        assert (message, "serve the registry by https" in out) == (
            f"{served.host} answers without TLS",
            True,
        )


async def test_a_registry_that_requires_a_client_certificate(ours: Certificate) -> None:
    context = ours.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # (by 1.3 it hangs up after the handshake)
    async with registry(context) as served:
        message, out = await explain(served.host, ours.certificate)
        assert message.startswith(f"TLS with {served.host} fails: ")
        assert "client certificates" in out


async def test_an_unknown_host_name() -> None:
    message, out = await explain("registry.invalid:5000")
    assert (message, "DNS" in out) == ("the name of registry.invalid:5000 cannot be resolved", True)


async def test_a_port_without_a_listener() -> None:
    port = free_ports(1)[0]
    message, out = await explain(f"{HERE}:{port}")
    assert (message, "listens on that port" in out) == (f"{HERE}:{port} refuses connections", True)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not answer in HTTP", id="another-protocol"
        ),
        pytest.param(b"", "cannot be reached: Server disconnected", id="hangs-up"),
    ],
)
async def test_a_server_that_is_no_registry(answer: bytes, text: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        message, _ = await explain(host)
        assert message.startswith(f"{host} {text}")


async def test_the_server_after_a_redirect_is_the_one_named(
    ours: Certificate, tmp_path: Path
) -> None:
    theirs = make_certificate(tmp_path, "theirs", hosts=[HERE])
    async with registry(ours.context()) as served, registry(theirs.context()) as storage:
        served.blobs_at = storage.url
        message, _ = await explain(served.host, ours.certificate)
        assert message.startswith(f"the certificate of {storage.host} does not verify")


def unverified(code: int, text: str) -> aiohttp.ClientConnectorCertificateError:
    cause = ssl.SSLCertVerificationError(1, text)
    cause.verify_code = code
    cause.verify_message = text
    key = ConnectionKey(
        "r.example",
        443,
        is_ssl=True,
        ssl=True,
        proxy=None,
        proxy_auth=None,
        proxy_headers_hash=None,
    )
    return aiohttp.ClientConnectorCertificateError(key, cause)


@pytest.mark.parametrize(
    ("error", "text", "way_out"),
    [
        pytest.param(
            aiohttp.ConnectionTimeoutError("late"),
            "r.example does not accept a connection in time",
            "NetworkPolicy",
            id="no-connection",
        ),
        pytest.param(
            aiohttp.SocketTimeoutError("late"),
            "r.example did not answer in time",
            "",
            id="no-answer",
        ),
        pytest.param(TimeoutError(), "r.example did not answer in time", "", id="no-answer-in-all"),
        pytest.param(
            aiohttp.ClientOSError(113, "No route to host"),
            "there is no route to r.example",
            "firewall",
            id="no-route",
        ),
        pytest.param(
            aiohttp.ClientOSError(101, "Network is unreachable"),
            "there is no route to r.example",
            "firewall",
            id="no-network",
        ),
        pytest.param(
            aiohttp.ClientOSError(104, "Connection reset by peer"),
            "r.example cannot be reached: [Errno 104]",
            "",
            id="reset",
        ),
        pytest.param(
            aiohttp.ServerDisconnectedError(),
            "r.example cannot be reached: Server disconnected",
            "",
            id="disconnected",
        ),
        pytest.param(
            aiohttp.ClientPayloadError("cut"),
            "r.example cannot be reached: cut",
            "",
            id="cut-short",
        ),
        pytest.param(
            unverified(62, "Hostname mismatch"),
            "the certificate of r.example is for another host name",
            "correct spec.image",
            id="another-host-name",
        ),
        pytest.param(
            unverified(23, "revoked"),
            "the certificate of r.example does not verify: revoked",
            "AIM_CA_BUNDLE",
            id="another-code",
        ),
        pytest.param(
            aiohttp.ClientError(),
            "r.example cannot be reached: ClientError",
            "",
            id="without-a-message",
        ),
    ],
)
def test_what_no_test_can_bring_about_on_a_network(
    error: aiohttp.ClientError, text: str, way_out: str
) -> None:
    message, out = trouble(error, "r.example")
    assert (message.startswith(text), way_out in out, bool(out)) == (
        True,
        True,
        bool(way_out),
    ), message


def test_a_bundle_that_is_none_is_a_bad_setting(ours: Certificate, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path in (tmp_path / "nowhere.pem", empty, ours.key):
        with pytest.raises(ValueError, match=r"ca_bundle\n.*is no PEM file with certificates"):
            DiscoverySettings(ca_bundle=str(path))
    assert DiscoverySettings(ca_bundle=str(ours.certificate)).ca_bundle == str(ours.certificate)
    assert DiscoverySettings(ca_bundle="").ca_bundle is None
