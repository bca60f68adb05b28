"""Errors of S3 stores: one table of error codes, of Amazon and of other vendors. Pure.

Each error has a `Kind`, the store's own code and message, and advice if we know any. An error is
retryable only if another request may cure it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from aim_downloader.clean import clean
from aim_downloader.store_errors import Kind
from aim_downloader.stores import Store
from aim_downloader.trust import causes, certificate_fault

_LIST_AND_GET = "check the keys and that they may list and get"
_KEYS = "check the access key and the secret key"
_TEMPORARY = "the keys are temporary and have expired: use long-lived ones, or renew them"
_ACCOUNT = "the account has a problem: ask the operator of the store"
_REGION = "set the region of the bucket"
_CLOCK = "correct the clock of the node"
_ARCHIVED = "the object is archived: restore it, or copy it to a storage class that can be read"
_KMS = "allow kms:Decrypt with the key that encrypts the objects, and check that the key is enabled"
_CUSTOMER_KEY = "the object is encrypted with a customer's key (SSE-C), which cannot be given here"
_NAME = "correct bucket and prefix"
_VIRTUAL = "the store requires the bucket in the host name: set {variables}ADDRESSING=virtual"
_PATH = "the store requires the bucket in the path: set {variables}ADDRESSING=path"
_ENDPOINT = "correct endpointUrl"

Row = tuple[Kind, str]
_TABLE: dict[Row, str] = {
    ("not_there", ""): "NoSuchKey 404 NotFound",
    ("not_there", _NAME): "NoSuchBucket InvalidBucketName InvalidObjectName",
    ("not_there", _ENDPOINT): "PermanentRedirect TemporaryRedirect Redirect",
    ("no_access", _LIST_AND_GET): "AccessDenied Forbidden UnauthorizedAccess Unauthorized 401 403",
    ("no_access", _KEYS): (
        "SignatureDoesNotMatch InvalidAccessKeyId InvalidAccessKey"
        " InvalidSecurity MissingSecurityHeader MissingAuthenticationToken"
    ),
    (
        "no_access",
        _TEMPORARY,
    ): "ExpiredToken ExpiredTokenException InvalidToken TokenRefreshRequired RequestExpired",
    ("no_access", _ACCOUNT): (
        "AllAccessDisabled AccountProblem NotSignedUp UserSuspended"
        " UserDisable InvalidPayer Arrears AccountArrears BucketSuspended"
    ),
    (
        "no_access",
        _REGION,
    ): (
        "AuthorizationHeaderMalformed IllegalLocationConstraintException InvalidRegion"
        " InvalidRegionName"
    ),
    ("no_access", _ARCHIVED): "InvalidObjectState ObjectNotRestored",
    ("no_access", _VIRTUAL): (
        "SecondLevelDomainForbidden InvalidPathAccess"
        " VirtualHostDomainRequired PathStyleDomainForbidden PathStyleAccessForbidden"
        " PathStyleNotSupported PathStyleRequestNotAllowed UnsupportedPathStyle"
    ),
    ("no_access", _PATH): "VirtualHostStyleNotSupported VirtualHostingNotSupported",
    ("transient", _CLOCK): "RequestTimeTooSkewed RequestNotValidYet",
}
_CODES: dict[str, Row] = {code: row for row, codes in _TABLE.items() for code in codes.split()}
_RETRYABLE_CODES = (
    "RequestTimeout RequestTimeoutException SlowDown SlowDownRead Throttling ThrottlingException"
    " ThrottledException RequestThrottled RequestLimitExceeded TooManyRequests"
    " TooManyRequestsException BandwidthLimitExceeded ServiceUnavailable InternalError"
    " InternalFailure OperationAborted"
)
_RETRYABLE = frozenset(_RETRYABLE_CODES.split())
"""Codes that another request may cure, at any status."""
_RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNSUPPORTED_STATUSES = frozenset({400, 405, 416, 501})
_WRONG_PROTOCOL = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


class Redirected(Exception):
    """The endpoint redirects to another address. It is not followed: the signature would be
    lost."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


class NotS3(Exception):
    """A successful response without an S3 body; the text says what the body is."""


@dataclass(frozen=True)
class StoreError:
    """A classified error. `status` is 0 without a response."""

    kind: Kind
    code: str
    message: str = ""
    advice: str = ""
    retryable: bool = False
    status: int = 0
    retry_after_s: float = 0.0

    @property
    def text(self) -> str:
        text = f"{self.code}: {self.message}" if self.message else self.code
        return f"{text}; {self.advice}" if self.advice else text

    @property
    def is_unsupported_request(self) -> bool:
        """Whether the store may only reject an optional header, parameter or method of the
        request."""
        return self.status in _UNSUPPORTED_STATUSES and self.kind == "transient"


def store_error_of(error: Exception, store: Store) -> StoreError:
    """Classify any exception. An unknown one is transient: another run may succeed."""
    if fault := certificate_fault(error):
        return StoreError("transient", "certificate", fault)
    for cause in causes(error):
        match cause:
            case Redirected(location=location):
                to = clean(location) or "an address that it does not give"
                return StoreError("not_there", "redirect", f"redirects to {to}", _ENDPOINT)
            case NotS3():
                return StoreError("transient", "not S3", f"answers with {cause}", _ENDPOINT)
            case ssl.SSLError(reason=str(reason)) if reason in _WRONG_PROTOCOL:
                return StoreError("transient", "TLS", "does not speak TLS at that port", _ENDPOINT)
            case NoCredentialsError() | PartialCredentialsError():
                return StoreError("no_access", type(cause).__name__, advice=_LIST_AND_GET)
            case ClientError():
                return _of_answer(cause, store)
    passing = (HTTPClientError, BotoConnectionError, ResponseParserError, aiohttp.ClientError)
    if isinstance(error, (*passing, OSError, asyncio.TimeoutError)):
        return StoreError("transient", type(error).__name__, retryable=True)
    return StoreError("transient", type(error).__name__, clean(str(error)))


def _of_answer(error: ClientError, store: Store) -> StoreError:
    answer: Mapping[str, Any] = error.response
    about, metadata = answer.get("Error") or {}, answer.get("ResponseMetadata") or {}
    status = int(metadata.get("HTTPStatusCode") or 0)
    code = str(about.get("Code") or status or "unknown error")
    message = clean(str(answer.get("Text") or about.get("Message") or ""))
    kind, advice = _row(code, status, message)
    if error.operation_name.startswith("AssumeRole"):
        kind, advice = "no_access", "let the cloud's role trust the ServiceAccount of this pod"
    if code == "PermanentRedirect" and about.get("Endpoint"):
        message = f"{message} (it names {clean(str(about['Endpoint']))})"
    after = str((metadata.get("HTTPHeaders") or {}).get("retry-after") or "")
    is_retryable = code in _RETRYABLE or (status in _RETRYABLE_STATUSES and code not in _CODES)
    return StoreError(
        kind,
        code,
        "" if message == code else message,
        advice.format(variables=store.variables),
        is_retryable and kind == "transient",
        status,
        float(after) if after.isdigit() else 0.0,
    )


def _row(code: str, status: int, message: str) -> Row:
    """Kind and advice. A KMS key in the message wins over the code, which is AccessDenied."""
    if (
        code not in _RETRYABLE
        and status < 500
        and (code.startswith("KMS.") or "kms:" in message.lower())
    ):
        return "no_access", _KMS
    if code == "InvalidRequest" and "server side encryption" in message.lower():
        return "no_access", _CUSTOMER_KEY
    if code in _CODES:
        return _CODES[code]
    if code in _RETRYABLE:
        return "transient", ""
    if status in {401, 403}:
        return "no_access", _LIST_AND_GET
    if status == 404:
        return "not_there", ""
    return "transient", ""
