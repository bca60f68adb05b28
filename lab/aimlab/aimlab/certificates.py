"""Self-signed certificates for servers on loopback, created at their start. By default they are
valid for 127.0.0.1 and localhost."""

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

GOOD_FOR = timedelta(days=365)
CLOCK_SKEW = timedelta(hours=1)
KEY_BITS = 2048


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files. A client that is to check the server is given `certificate` as its authority."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server that presents it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def issuer(self) -> tuple[x509.Name, rsa.RSAPrivateKey]:
        """The name and key that it signs others with."""
        key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).subject, key


def make_certificate(
    folder: Path,
    name: str,
    *,
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    from_: datetime | None = None,
    until: datetime | None = None,
    authority: Certificate | None = None,
) -> Certificate:
    """A new key (RSA, as kube-apiserver wants one for its tokens) and its certificate, as
    `<name>.crt` and `<name>.key`.

    Good `from_` an hour ago `until` a year from now, for `hosts`: names and addresses. Signed by
    the `authority`, without one by itself.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    begins, ends = from_ or datetime.now(UTC) - CLOCK_SKEW, until or datetime.now(UTC) + GOOD_FOR
    issuer, issuer_key = authority.issuer() if authority else (subject, key)
    constraints = x509.BasicConstraints(ca=authority is None, path_length=None if authority else 0)
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), begins, ends
    )
    signed = builder.add_extension(names, critical=False).add_extension(constraints, critical=True)
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    folder.mkdir(parents=True, exist_ok=True)
    made.certificate.write_bytes(
        signed.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    made.key.touch(mode=0o600)
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return made


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
