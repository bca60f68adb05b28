"""The credentials from a client's files, and the error messages for invalid files or servers."""

import ssl
from pathlib import Path

import pytest
from nats.errors import AuthorizationError, Error

from aimbus import AccessDenied, NatsCredentials
from aimbus.accounts import new_seed

CREDENTIALS = """-----BEGIN NATS USER JWT-----
ey.ey.sig
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


def test_without_files_nothing_is_asked_for() -> None:
    assert NatsCredentials().options() == {}


def test_a_seed_alone_is_a_key(tmp_path: Path) -> None:
    seed = new_seed()
    (tmp_path / "seed").write_text(seed + "\n")
    assert NatsCredentials(str(tmp_path / "seed")).options() == {"nkeys_seed_str": seed}


def test_a_credentials_file_is_given_on_as_it_is(tmp_path: Path) -> None:
    text = CREDENTIALS.format(seed=new_seed())
    (tmp_path / "creds").write_text(text)
    assert NatsCredentials(str(tmp_path / "creds")).options() == {"user_credentials": text}


def test_files_are_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    first = new_seed()
    second = new_seed()
    access = NatsCredentials(str(file))
    file.write_text(first)
    assert access.options()["nkeys_seed_str"] == first
    file.write_text(second)
    assert access.options()["nkeys_seed_str"] == second


@pytest.mark.parametrize(
    "content",
    ["", "SUABC", "-----BEGIN USER NKEY SEED-----", b"\xff\xfe", CREDENTIALS.partition("\n\n")[0]],
)
def test_a_bad_key_is_reported_without_its_content(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "seed"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AccessDenied, match=r"^AIM_NATS_CREDS: .*seed") as denied:
        NatsCredentials(str(file)).options()
    assert "SUABC" not in str(denied.value)


@pytest.mark.parametrize(
    "content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_bad_certificate_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "ca").write_text(content)
    with pytest.raises(AccessDenied, match=r"^AIM_NATS_CA: .*ca holds no certificate in PEM"):
        NatsCredentials(ca=str(tmp_path / "ca")).options()


@pytest.mark.parametrize(
    ("access", "error", "message"),
    [
        pytest.param(
            NatsCredentials(),
            AuthorizationError(),
            "AIM_NATS_CREDS: the server requires an NKey",
            id="no-key",
        ),
        pytest.param(
            NatsCredentials("/f"),
            Error("nats: 'Authorization Violation'"),
            "AIM_NATS_CREDS: the server does not know the key in /f",
            id="key",
        ),
        pytest.param(
            NatsCredentials("/f"),
            Error("nats: user authentication expired"),
            "AIM_NATS_CREDS: the server does not know",
            id="expired",
        ),
        pytest.param(
            NatsCredentials(),
            ssl.SSLCertVerificationError(1, "bad"),
            "AIM_NATS_CA: the server's certificate is not valid",
            id="certificate",
        ),
        pytest.param(
            NatsCredentials(),
            ssl.SSLError(1, "application data after close notify"),
            None,
            id="end-of-a-connection",
        ),
        pytest.param(
            NatsCredentials(), ConnectionRefusedError(111, "refused"), None, id="no-server"
        ),
        pytest.param(
            NatsCredentials(), Error("nats: stale connection"), None, id="another-trouble"
        ),
    ],
)
def test_the_setting_is_named_where_it_is_to_blame(
    access: NatsCredentials, error: Exception, message: str | None
) -> None:
    blamed = access.as_credential_error(error)
    assert (blamed is None) if message is None else str(blamed).startswith(message)


@pytest.mark.parametrize(
    ("error_text", "message"),
    [
        (
            'nats: permissions violation for publish to "aim.object.pod.ml.x"',
            "publish to aim.object.>",
        ),
        (
            'nats: permissions violation for publish to "$js.api.consumer.create.aim_log.abc"',
            "publish to $JS.API.CONSUMER.CREATE.AIM_LOG.>",
        ),
        (
            'nats: permissions violation for subscription to "_inbox_cacher.abc.*"',
            "subscribe to _inbox_cacher.>",
        ),
        (
            'nats: permissions violation for subscription to "other" using queue "q"',
            "subscribe to other",
        ),
    ],
)
def test_a_missing_permission_is_named_by_head_of_subject(error_text: str, message: str) -> None:
    assert (
        str(NatsCredentials().as_permission_error(Error(error_text)))
        == f"AIM_NATS_CREDS: this user may not {message}, see docs/how-to/nats.md"
    )


def test_no_other_error_is_a_lacking_permission() -> None:
    assert NatsCredentials().as_permission_error(Error("nats: slow consumer")) is None
