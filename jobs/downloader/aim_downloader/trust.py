"""Trusted CAs, and messages for a certificate that does not verify. Blocks only to read files.

The public CAs are always trusted, and so are the CAs in the files that `SSL_CERT_FILE`,
`REQUESTS_CA_BUNDLE` and `AWS_CA_BUNDLE` name. One context serves every client (aiobotocore,
huggingface_hub, aiohttp): a bundle in any of the variables is enough. A private CA for a store
does not make the public hub untrusted.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from botocore.httpsession import get_cert_path

from aim_downloader.exit_codes import Failure, Outcome

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
_EXPIRED = 10
_NOT_YET_VALID = 9
_WRONG_HOST = 62
_WRONG_ADDRESS = 64
"""Codes of OpenSSL (X509_V_ERR_*)."""


def tls_context(env: Mapping[str, str]) -> ssl.SSLContext:
    """Raises Failure(TRANSIENT) that names the variable if a bundle cannot be used: its mount may
    come later."""
    bundles = {name: path for name in VARIABLES if (path := env.get(name, "").strip())}
    if not bundles:
        return _public_context()
    context = _new_context()
    for name, path in bundles.items():
        _load(context, name, Path(path))
    return context


@cache
def _public_context() -> ssl.SSLContext:
    """Reading the public CAs takes 40 ms."""
    return _new_context()


def _new_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(get_cert_path(True))
    return context


def certificate_fault(error: BaseException) -> str:
    """The fault of the server's certificate, and what to do; empty for any other error."""
    for cause in causes(error):
        # aiohttp's own error has this type too, but without the verify code of OpenSSL.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_code"):
            return (
                f"its certificate does not verify ({cause.verify_message}):"
                f" {_way_out(cause.verify_code)}"
            )
    return ""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the nearest first. Client libraries hide the error of the socket at
    any depth."""
    waiting, visited = [error], set()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in visited:
            continue
        visited.add(id(cause))
        yield cause
        hidden = (
            cause.__cause__,
            cause.__context__,
            *cause.args,
            *getattr(cause, "kwargs", {}).values(),
        )
        waiting += [found for found in hidden if isinstance(found, BaseException)]


def _load(context: ssl.SSLContext, name: str, path: Path) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        message = (
            f"{name} names {path}, which holds no certificate in PEM form: correct the CA bundle"
        )
        raise Failure(Outcome.TRANSIENT, message) from error
    except OSError as error:
        message = (
            f"{name} names {path}, which cannot be read ({error.strerror}): correct the CA bundle"
        )
        raise Failure(Outcome.TRANSIENT, message) from error


def _way_out(code: int) -> str:
    if code in {_EXPIRED, _NOT_YET_VALID}:
        return "renew it at the server, or correct the clock"
    if code in {_WRONG_HOST, _WRONG_ADDRESS}:
        return "use a host name that it covers, or reissue it for this one"
    return f"add the CA that signed it to the CA bundle ({', '.join(VARIABLES)})"
