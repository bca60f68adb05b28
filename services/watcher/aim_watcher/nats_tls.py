"""The CA of the NATS server, and the server's certificate. Elliptic-curve keys (P-256, RFC 8422),
PEM."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_GOOD_FOR = SERVER_GOOD_FOR = timedelta(days=3650)
"""Both are valid equally long: without the CA's key, only a new CA can sign a new certificate."""
RENEW_BEFORE = timedelta(days=120)
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


def make_authority(now: datetime) -> Pair:
    """Create a CA; `now` is aware UTC."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aim-nats-ca")])
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = x509.CertificateBuilder(
        name,
        name,
        key.public_key(),
        x509.random_serial_number(),
        now - CLOCK_SKEW,
        now + AUTHORITY_GOOD_FOR,
    ).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _sign(
        builder.add_extension(_usage(signs=True), critical=True).add_extension(
            key_id, critical=False
        ),
        key,
        key,
    )


def make_server(authority: Pair, names: list[str], now: datetime) -> Pair:
    """Create a certificate for these names and addresses. It is valid for server and client
    authentication, since servers of a cluster connect to each other."""
    parent = x509.load_pem_x509_certificate(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    roles = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    builder = (
        x509.CertificateBuilder(
            parent.subject,
            subject,
            key.public_key(),
            x509.random_serial_number(),
            now - CLOCK_SKEW,
            now + SERVER_GOOD_FOR,
        )
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(roles, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    return _sign(builder, key, signer)


def serves(certificate: bytes, authority: bytes, names: list[str], now: datetime) -> bool:
    """Whether this CA signed the certificate, it has exactly these names, and it is valid for
    longer than RENEW_BEFORE. Raises ValueError if it is no certificate."""
    found = x509.load_pem_x509_certificate(certificate)
    alternative_names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if (
        list(alternative_names) != [_name(name) for name in names]
        or found.not_valid_after_utc - now < RENEW_BEFORE
    ):
        return False
    try:
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except Exception:  # the verification raises errors of many types
        return False
    return True


def _sign(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Pair:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), pem)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
