"""What a listing adds up to, and what errors of stores mean, without a server."""

from __future__ import annotations

import ssl
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
)
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.clean import clean
from aim_downloader.ranges import Answered, fault_of
from aim_downloader.s3_errors import Redirected, StoreError, store_error_of
from aim_downloader.s3_listing import IncompleteListing, Page, PageStart, list_objects
from aim_downloader.stores import Store

STORE = Store(endpoint_url="http://s3", variables="AIM_S3_4_")


def page(*keys: str, **facts: Any) -> Page:
    return {"Contents": [{"Key": key} for key in keys]} | facts


async def listed(pages: list[Page]) -> list[str]:
    """The keys of what these pages add up to; the last is repeated for ever."""
    requested = count()

    async def fetch_page(_: PageStart) -> Page:
        return pages[min(next(requested), len(pages) - 1)]

    return [item["Key"] for item in await list_objects(fetch_page, "m/")]


MORE = {"IsTruncated": True}


@pytest.mark.parametrize(
    ("pages", "keys"),
    [
        pytest.param([page()], [], id="nothing"),
        pytest.param([{}], [], id="nothing-at-all"),
        pytest.param([page("m/a", "other/b", "m/c")], ["m/a", "m/c"], id="others'-keys"),
        pytest.param([page("m/a", "m/a")], ["m/a"], id="the-same-key-twice"),
        pytest.param(
            [page(NextContinuationToken="t", **MORE), page("m/a")],
            ["m/a"],
            id="an-empty-page-with-a-token",
        ),
        pytest.param(
            [page("m/a", **MORE), page("m/a", "m/b")],
            ["m/a", "m/b"],
            id="start-after-is-taken-for-from",
        ),
        pytest.param(
            [page("m/a", IsTruncated=False, NextContinuationToken="t")],
            ["m/a"],
            id="a-token-that-leads-nowhere",
        ),
        pytest.param(
            [page("m/a", NextContinuationToken="t"), page(NextContinuationToken="t")],
            ["m/a"],
            id="a-token-to-nothing",
        ),
        pytest.param(
            [page("m/a", MaxKeys=1), page("m/b", MaxKeys=1), page(MaxKeys=1)],
            ["m/a", "m/b"],
            id="full-pages-without-a-word",
        ),
        pytest.param(
            [page("m/b", "m/a", IsTruncated=False)], ["m/b", "m/a"], id="out-of-order-on-one-page"
        ),
    ],
)
async def test_pages_add_up_to_a_listing(pages: list[Page], keys: list[str]) -> None:
    assert await listed(pages) == keys


@pytest.mark.parametrize(
    ("pages", "text"),
    [
        pytest.param([page("m/a", **MORE)], "lists the same keys again", id="the-same-page"),
        pytest.param(
            [page("m/a", NextContinuationToken="t", **MORE)],
            "lists the same keys again",
            id="the-same-page-and-token",
        ),
        pytest.param([page(**MORE)], "lists none", id="empty"),
        pytest.param([page("m/b", "m/a", **MORE)], "out of order", id="out-of-order"),
        pytest.param([page(KeyCount=2)], "counts 2 keys", id="counted-and-not-listed"),
        pytest.param([{"Contents": [{"Size": 1}]}], "without a key", id="no-key"),
    ],
)
async def test_a_part_is_never_taken_for_the_whole(pages: list[Page], text: str) -> None:
    with pytest.raises(IncompleteListing, match=text):
        await listed(pages)


@pytest.mark.parametrize("keys", [(), ("m/a",)])
async def test_a_listing_with_endless_tokens_fails(keys: tuple[str, ...]) -> None:
    requested = count()

    async def fetch_page(_: PageStart) -> Page:
        return page(*keys, NextContinuationToken=str(next(requested)), IsTruncated=True)

    with pytest.raises(IncompleteListing):
        await list_objects(fetch_page, "m/")
    assert next(requested) < 1100


@given(
    st.sets(st.text("abc/", min_size=1, max_size=4)),
    st.integers(1, 3),
    st.sampled_from(["token", "start_after", "marker"]),
)
async def test_every_way_of_paging_finds_every_key(names: set[str], size: int, method: str) -> None:
    keys = sorted(f"m/{name}" for name in names)

    async def fetch_page(start: PageStart) -> Page:
        at = int(start.value) if start.by == "token" and start.value and method == "token" else 0
        after = start.value if start.by == method != "token" else ""
        left = [key for key in keys[at:] if key > after]
        token = {"NextContinuationToken": str(at + size)} if method == "token" else {}
        return page(*left[:size], IsTruncated=len(left) > size, **token)

    assert [item["Key"] for item in await list_objects(fetch_page, "m/")] == keys


def answered(
    status: int, code: str = "", message: str = "", operation: str = "ListObjectsV2", **more: Any
) -> ClientError:
    error = {"Code": code, "Message": message} | more
    return ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "kind", "retryable", "text"),
    [
        (
            answered(403, "AccessDenied", "no", "AssumeRoleWithWebIdentity"),
            "no_access",
            False,
            "let the cloud's role trust the ServiceAccount",
        ),
        (
            answered(400, "AuthorizationHeaderMalformed", "wrong", Region="eu"),
            "no_access",
            False,
            "set the region",
        ),
        (answered(403, "InvalidObjectState", "archived"), "no_access", False, "restore it"),
        (
            answered(403, "PathStyleDomainForbidden", "no"),
            "no_access",
            False,
            "AIM_S3_4_ADDRESSING=virtual",
        ),
        (answered(403, "RequestTimeTooSkewed", "no"), "transient", False, "clock"),
        (answered(400, "RequestTimeout", "slow"), "transient", True, "slow"),
        (answered(409, "OperationAborted", "again"), "transient", True, "again"),
        (answered(503, "", ""), "transient", True, "503"),
        (answered(501, "NotImplemented", "no"), "transient", False, "no"),
        (answered(410, "", ""), "transient", False, "410"),
        (answered(403, "NeverHeardOf", "because"), "no_access", False, "because"),
        (answered(404, "NeverHeardOf", "gone"), "not_there", False, "gone"),
        (answered(500, "KMS.InternalException", "later"), "transient", True, "later"),
        (
            answered(400, "KMS.KMSInvalidStateException", "pending deletion"),
            "no_access",
            False,
            "kms:Decrypt",
        ),
        (
            answered(301, "PermanentRedirect", "elsewhere", Endpoint="s3.eu.example.org"),
            "not_there",
            False,
            "s3.eu.example.org",
        ),
        (ClientError({}, "ListObjectsV2"), "transient", False, "unknown error"),
        (NoCredentialsError(), "no_access", False, "NoCredentialsError"),
        (
            EndpointConnectionError(endpoint_url="http://s3/?X-Amz-Signature=1"),
            "transient",
            True,
            "EndpointConnectionError",
        ),
        (
            HTTPClientError(error=Redirected("https://s3/")),
            "not_there",
            False,
            "redirects to https://s3/; correct endpointUrl",
        ),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "transient", True, "SSLError"),
        (RecursionError("deep"), "transient", False, "RecursionError: deep"),
        (KeyError("ETag"), "transient", False, "ETag"),
    ],
)
def test_every_error_has_a_meaning(error: Exception, kind: str, retryable: bool, text: str) -> None:
    store_error = store_error_of(error, STORE)
    assert (store_error.kind, store_error.retryable, text in store_error.text) == (
        kind,
        retryable,
        True,
    ), store_error
    assert "Signature" not in store_error.text


def test_the_retry_after_of_a_store_is_honoured() -> None:
    error = answered(503, "SlowDown", "slower")
    error.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "7"}
    assert store_error_of(error, STORE) == StoreError(
        "transient", "SlowDown", "slower", retryable=True, status=503, retry_after_s=7.0
    )


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("  two\n\twords \x1b[31m\x00", "two words [31m"),
        ("<!DOCTYPE html><html><title>\n Sign in </title>", "Sign in"),
        ("<html><body>no title</body></html>", ""),
        ("<not html>", "<not html>"),
        ("x" * 1000, "…"),
        ("short " + "y" * 1000, "short …"),
    ],
)
def test_foreign_text_is_one_short_line(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(st.text())
def test_foreign_text_is_never_long_and_always_printable(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) <= 250
    assert all(char.isprintable() for char in cleaned)


@pytest.mark.parametrize(
    ("answer", "requested", "is_fine"),
    [
        (Answered(206, "bytes 10-19/100", 10), (10, 20), True),
        (Answered(206, "bytes 10-19/*", 10), (10, 20), True),
        (Answered(206, "bytes 10-14/100", 5), (10, 20), True),
        (Answered(206, "", 10), (10, 20), True),
        (Answered(206, "", None), (10, 20), True),
        (Answered(206, "", 100), (10, 20), False),
        (Answered(206, "bytes 10-19/100", 9), (10, 20), False),
        (Answered(206, "bytes 0-9/100", 10), (10, 20), False),
        (Answered(206, "bytes 10-29/100", 20), (10, 20), False),
        (Answered(206, "bytes 10-19/101", 10), (10, 20), False),
        (Answered(200, "", 100), (0, 100), True),
        (Answered(200, "", None), (0, 100), True),
        (Answered(200, "", 101), (0, 100), False),
        (Answered(200, "", 100), (10, 20), False),
    ],
)
def test_a_response_is_checked_against_the_requested_range(
    answer: Answered, requested: tuple[int, int], is_fine: bool
) -> None:
    assert (fault_of(answer, requested, 100) == "") is is_fine
