"""The credentials of a client and the CA of its server: files that are read again for every client,
so that they can be replaced.

An unusable file, and a server that rejects its content, are reported under the name of the setting
to fix.
"""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client, RawCredentials

from aimbus.errors import AccessDenied

CREDS_SETTING = "AIM_NATS_CREDS"
CA_SETTING = "AIM_NATS_CA"
_CREDS_PARTS = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")
_UNKNOWN_USER = re.compile(r"authorization violation|authentication", re.IGNORECASE)
_LACKING = re.compile(
    r"permissions violation for (publish|subscription) to \"?([^\"\s]+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class NatsCredentials:
    """Paths of files. `creds`: a credentials file (JWT and seed) or a file with an NKey seed alone;
    None: no authentication.

    `ca`: the PEM certificates by which the server's is checked; None: those of the system. With it,
    or with a URL of the scheme `tls`, the connection to a server without TLS is closed.
    """

    creds: str | None = None
    ca: str | None = None

    def options(self) -> dict[str, Any]:
        """What of it nats-py's `connect` takes. Reads the files. Raises AccessDenied naming the
        setting and the file."""
        return {
            **self._identity(),
            **({} if self.ca is None else {"tls": self._authorities(self.ca)}),
        }

    def _identity(self) -> dict[str, Any]:
        if self.creds is None:
            return {}
        text = _read(CREDS_SETTING, self.creds)
        if all(part in text for part in _CREDS_PARTS):
            return {"user_credentials": RawCredentials(text)}
        import nkeys  # noqa: PLC0415 (2 MB that a server without authentication does not need)

        try:
            nkeys.from_seed(bytearray(text.strip().encode()))
        except (
            Exception
        ) as error:  # nkeys has its own errors, and also raises those of its dependencies
            raise AccessDenied(
                f"{CREDS_SETTING}: {self.creds} holds neither an NKey seed nor NATS credentials"
            ) from error
        return {"nkeys_seed_str": text.strip()}

    def _authorities(self, path: str) -> ssl.SSLContext:
        context = ssl.SSLContext(
            ssl.PROTOCOL_TLS_CLIENT
        )  # (create_default_context takes the system's authorities where a file is empty)
        try:
            context.load_verify_locations(cadata=_read(CA_SETTING, path))
        except (ssl.SSLError, ValueError) as error:
            raise AccessDenied(f"{CA_SETTING}: {path} holds no certificate in PEM") from error
        return context

    def as_credential_error(self, error: Exception) -> AccessDenied | None:
        """The error in terms of the settings, if one of them must be fixed."""
        text = str(error)
        if isinstance(error, AccessDenied):
            return error
        if isinstance(error, ssl.SSLCertVerificationError):
            return AccessDenied(
                f"{CA_SETTING}: the server's certificate is not valid:"
                f" {getattr(error, 'verify_message', '') or text}"
            )
        if isinstance(error, nats.errors.AuthorizationError) or _UNKNOWN_USER.search(text):
            what = (
                "the server does not know the key in"
                if self.creds
                else "the server requires an NKey; set it to a seed file"
            )
            return AccessDenied(
                f"{CREDS_SETTING}: {what}{f' {self.creds}' if self.creds else ''}"
                f" ({text.removeprefix('nats: ')})"
            )
        return None

    def as_permission_error(self, error: Exception) -> AccessDenied | None:
        """A missing permission of this user. Only the head of the subject is reported, so that a
        lasting problem is one line and not thousands."""
        found = _LACKING.search(str(error))
        if found is None:
            return None
        verb = "publish" if found[1].lower() == "publish" else "subscribe"
        return AccessDenied(
            f"{CREDS_SETTING}: this user may not {verb} to {_head(found[2])},"
            " see docs/how-to/nats.md"
        )

    def check_encrypted(self, client: Client) -> None:
        """nats-py connects without TLS to a server that does not offer it, also where it was
        requested. Raises AccessDenied."""
        url = client.connected_url
        tls_required = self.ca is not None or (url is not None and url.scheme == "tls")
        if tls_required and not client._server_info.get("tls_required"):
            raise AccessDenied(
                f"{CA_SETTING}: the server does not offer TLS; refusing to connect: turn on its"
                " TLS, or unset this and use nats://"
            )


def inbox_prefix(name: str) -> str:
    """Where replies come for the client of this name, `aim-<service>` or `aimctl`."""
    return f"_INBOX_{name.removeprefix('aim-')}"


def _head(subject: str) -> str:
    """`subject` comes in lower case from nats-py; what JetStream calls its requests is in upper
    case."""
    tokens = (subject.upper() if subject.startswith("$js.") else subject).split(".")
    head_length = 1 if tokens[0].startswith("_inbox") else 2
    if tokens[0] == "$JS":
        head_length = 5
    return ".".join(tokens if len(tokens) <= head_length else [*tokens[:head_length], ">"])


def _read(setting: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise AccessDenied(f"{setting}: {path} cannot be read: {why}") from error
