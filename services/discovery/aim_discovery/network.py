"""Explains why a server cannot be reached over the network, and what a user can do. Each family
of errors has its own text."""

import errno
import ssl

import aiohttp

EXPIRED = 10
NOT_YET_VALID = 9
OTHER_HOST = 62
OTHER_ADDRESS = 64
"""Codes of OpenSSL's verification (X509_V_ERR_*)."""
_PLAIN_ANSWERS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
)
"""What OpenSSL makes of an answer that is no TLS."""
CA_BUNDLE = "AIM_CA_BUNDLE"


_TLS_VERSIONS = "; check which TLS versions and client certificates it requires"
_PATH = "; check for a firewall, a proxy or a NetworkPolicy between the control plane and it"


def trouble(error: aiohttp.ClientError | TimeoutError, server: str) -> tuple[str, str]:
    """What is wrong with the connection to `server`, and the way out; that is empty where there
    is none but waiting."""
    cause = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    number = getattr(error, "errno", None) or getattr(cause, "errno", None)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return _certificate(error.certificate_error, server)
        case aiohttp.ClientConnectorDNSError():
            return (
                f"the name of {server} cannot be resolved",
                "; correct it in spec.image, or check the DNS of the cluster",
            )
        case aiohttp.ConnectionTimeoutError():
            return f"{server} does not accept a connection in time", _PATH
        case TimeoutError():
            return f"{server} did not answer in time", ""
        case aiohttp.ClientResponseError():
            return f"{server} does not answer in HTTP", "; correct the port in spec.image"
        case aiohttp.ClientConnectorError() if isinstance(
            cause, ConnectionResetError
        ):  # (what asyncio makes of an alert)
            return f"TLS with {server} fails: it ends the connection", _TLS_VERSIONS
        case ssl.SSLError():
            return _tls(cause if isinstance(cause, ssl.SSLError) else error, server)
    if isinstance(cause, ssl.SSLError):
        return _tls(cause, server)
    if number == errno.ECONNREFUSED:
        return (
            f"{server} refuses connections",
            "; check that the registry is up and listens on that port",
        )
    if number in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        return f"there is no route to {server}", _PATH
    return f"{server} cannot be reached: {(str(error) or type(error).__name__)[:300]}", ""


def _certificate(error: Exception, server: str) -> tuple[str, str]:
    code = getattr(error, "verify_code", None)
    why = str(getattr(error, "verify_message", "") or error)[:200]
    known = {  # by code of OpenSSL
        EXPIRED: (f"the certificate of {server} has expired", "; renew it"),
        NOT_YET_VALID: (
            f"the certificate of {server} is not valid yet",
            "; check the clocks",
        ),
        OTHER_HOST: (
            f"the certificate of {server} is for another host name",
            "; correct spec.image, or the certificate",
        ),
        OTHER_ADDRESS: (
            f"the certificate of {server} is for another address",
            "; correct spec.image, or the certificate",
        ),
    }
    private = (
        f"; if its CA is a private one, set {CA_BUNDLE} (chart value caBundle) to a PEM file with"
        " the CA's certificate"
    )
    return known.get(code or 0, (f"the certificate of {server} does not verify: {why}", private))


def _tls(error: ssl.SSLError, server: str) -> tuple[str, str]:
    reason = error.reason or ""
    if reason.upper() in _PLAIN_ANSWERS:
        return (
            f"{server} answers without TLS",
            "; serve the registry by https, or correct the port in spec.image",
        )
    cause = (reason or str(error)).replace("_", " ").lower()[:200]
    return f"TLS with {server} fails: {cause}", _TLS_VERSIONS
