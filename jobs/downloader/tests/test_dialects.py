"""`s3://` against stores that depart from Amazon's S3, one switch of the lab's dialect server at
a time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aim_downloader.exit_codes import Failure, Retryable
from aim_downloader.retry import Limits
from aim_downloader.s3 import open_s3
from aim_downloader.uri import S3Uri
from aimlab.sources.dialects import Dialect, Rejection, Store, dialect_store

if TYPE_CHECKING:
    from conftest import Aim, Run

FILES = {"config.json": b"{}", "deep/weights.bin": os.urandom(200_000), "empty": b""}
OBJECTS = {f"org/model/{path}": content for path, content in FILES.items()}
NEIGHBOUR = {"org/model-2/config.json": b"[]", "a": b"a"}
MANY = {f"org/model/{number:04}": b"%d" % number for number in range(25)}
KEYS = {"ACCESS_KEY_ID": "an-access-key", "SECRET_ACCESS_KEY": "a-secret-key-9c41"}
URI = "s3://models/org/model"
HTML = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"


def env(store: Store, number: int = 0, /, **instead: str) -> dict[str, str]:
    values = {"ENDPOINT_URL": store.endpoint_url} | KEYS | instead
    return {f"AIM_S3_{number}_{name}": value for name, value in values.items()}


def below(dest: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(dest)): path for path in dest.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".aim-manifest.json"}


async def fetched(aim: Aim, dialect: Dialect, objects: dict[str, bytes]) -> Run:
    async with dialect_store(dialect, objects) as store:
        aim.env = env(store)
        return await aim("fetch", URI, str(aim.folder / "cache"))


# --- listings


LISTINGS = {
    "amazon": Dialect(),
    "no-token": Dialect(token="none"),
    "empty-token": Dialect(token="empty"),
    "unchanged-token": Dialect(token="unchanged"),
    "token-ignored": Dialect(knows_token=False),
    "token-and-start-after-ignored": Dialect(knows_token=False, knows_start_after=False),
    "no-token-and-start-after-ignored": Dialect(token="none", knows_start_after=False),
    "first-version-under-the-second's-name": Dialect(knows_list_v2=False),
    "second-version-not-implemented": Dialect(
        rejects={"list-v2": Rejection(501, "NotImplemented", "no")}
    ),
    "second-version-a-bad-request": Dialect(
        rejects={"list-v2": Rejection(400, "InvalidArgument", "no")}
    ),
    "second-version-not-allowed": Dialect(
        rejects={"list-v2": Rejection(405, "MethodNotAllowed", "no")}
    ),
    "prefix-ignored": Dialect(knows_prefix=False),
    "without-is-truncated": Dialect(omits=frozenset({"IsTruncated"})),
    "without-is-truncated-and-token": Dialect(token="none", omits=frozenset({"IsTruncated"})),
    "truncated-misspelt": Dialect(adds={"IsTruncated": "True"}),
    "raw-keys": Dialect(keys="raw"),
    "encoded-keys-unsaid": Dialect(keys="encoded-unsaid"),
}


@pytest.mark.parametrize("name", LISTINGS)
async def test_all_pages_of_a_listing_are_fetched(aim: Aim, name: str) -> None:
    dialect = LISTINGS[name]
    dialect.page_keys = 10
    done = await fetched(aim, dialect, MANY | NEIGHBOUR)
    assert (done.exit_code, done.result["files"]) == (0, 25), done.message
    assert below(aim.folder / "cache") == {
        key.removeprefix("org/model/"): content for key, content in MANY.items()
    }


async def test_a_full_page_without_is_truncated_is_not_the_last(aim: Aim) -> None:
    objects = {f"org/model/{number:04}": b"" for number in range(1003)}
    async with dialect_store(
        Dialect(token="none", omits=frozenset({"IsTruncated", "MaxKeys"})), objects
    ) as store:
        aim.env = env(store)
        assert (await aim("size", URI)).result["files"] == 1003


BROKEN_LISTINGS = {
    "the-same-page-again": (
        Dialect(token="none", knows_start_after=False, knows_marker=False),
        "the same keys again",
    ),
    "the-same-page-again-by-token": (
        Dialect(knows_token=False, knows_start_after=False, knows_marker=False),
        "the same keys again",
    ),
    "without-keys": (Dialect(omits=frozenset({"Key"})), "a listing that cannot be read"),
    "without-contents": (Dialect(omits=frozenset({"Contents"})), "counts 10 keys and lists none"),
    "truncated-and-empty": (
        Dialect(token="none", omits=frozenset({"Contents", "KeyCount"})),
        "reports more keys, and lists none",
    ),
}


@pytest.mark.parametrize("name", BROKEN_LISTINGS)
async def test_a_listing_that_cannot_be_completed_is_an_error(aim: Aim, name: str) -> None:
    dialect, text = BROKEN_LISTINGS[name]
    dialect.page_keys = 10
    async with dialect_store(dialect, MANY) as store:
        aim.env = env(store)
        done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (done.exit_code, store.endpoint_url in done.message) == (20, True)
    assert text in done.message
    assert len(store.requests) < 10
    assert not (aim.folder / "cache").exists()


@pytest.mark.parametrize(
    "omitted", ["ETag", "LastModified", "Size", "StorageClass", "MaxKeys", "Name", "KeyCount"]
)
async def test_elements_of_a_listing_are_optional(aim: Aim, omitted: str) -> None:
    done = await fetched(aim, Dialect(omits=frozenset({omitted})), OBJECTS)
    assert (done.exit_code, done.result["bytes"]) == (0, 200_002), done.message
    assert below(aim.folder / "cache") == FILES


async def test_without_etags_time_or_size_shows_a_change(aim: Aim) -> None:
    async with dialect_store(Dialect(omits=frozenset({"ETag"})), OBJECTS) as store:
        aim.env = env(store)
        first = await aim("fetch", URI, str(aim.folder / "cache"))
        again = await aim("fetch", URI, str(aim.folder / "cache"))
        store.objects["org/model/config.json"] = b"{ }"
        changed = await aim("fetch", URI, str(aim.folder / "cache"))
    assert (first.exit_code, again.message) == (0, "this revision is already complete")
    assert (changed.exit_code, changed.message) == (0, "fetched 1 of 3 files")


async def test_a_listing_of_many_pages_may_take_longer_than_one_answer(aim: Aim) -> None:
    """The time limit is for an answer, not for all of them."""
    done = await fetched(aim, Dialect(page_keys=1), MANY)
    assert done.exit_code == 0


# --- placeholders


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        pytest.param({"org/model/deep": b""}, 0, id="a-folder's-name"),
        pytest.param({"org/model/deep/": b""}, 0, id="a-folder's-name-with-a-slash"),
        pytest.param({"org/model": b"", "org/model/": b""}, 0, id="of-the-model-itself"),
        pytest.param(
            {"org/model/a": b"", "org/model/a/b": b"", "org/model/a/b/c": b"x"}, 0, id="nested"
        ),
        pytest.param({"org/model/deep": b"content"}, 10, id="not-empty"),
        pytest.param({"org/model/other/": b"content"}, 10, id="not-empty-with-a-slash"),
    ],
)
async def test_placeholders_of_folders_are_skipped(
    aim: Aim, extra: dict[str, bytes], code: int
) -> None:
    done = await fetched(aim, Dialect(), OBJECTS | extra)
    assert done.exit_code == code, done.message
    if code == 0:
        assert {path: below(aim.folder / "cache")[path] for path in FILES} == FILES
    else:
        assert "rejected" in done.message


# --- objects


ANSWERS = {
    "no-etag": Dialect(omits_headers=frozenset({"ETag"})),
    "no-etag-anywhere": Dialect(omits=frozenset({"ETag"}), omits_headers=frozenset({"ETag"})),
    "no-length": Dialect(omits_headers=frozenset({"Content-Length"})),
    "no-range-header": Dialect(omits_headers=frozenset({"Content-Range"})),
    "weak-etag": Dialect(etag='W/"{md5}"'),
    "bare-etag": Dialect(etag="{md5}"),
    "opaque-etag": Dialect(etag='"of-our-own"'),
    "etags-of-answers-differ": Dialect(answer_etag='"{md5}-gzip"'),
    "kms": Dialect(etag=f'"{"0" * 32}"', headers={"x-amz-server-side-encryption": "aws:kms"}),
    "dsse": Dialect(etag=f'"{"0" * 32}"', headers={"x-amz-server-side-encryption": "aws:kms:dsse"}),
    "customer-key": Dialect(
        etag=f'"{"0" * 32}"', headers={"x-amz-server-side-encryption-customer-algorithm": "AES256"}
    ),
    "express": Dialect(etag=f'"{"0" * 32}"', headers={"x-amz-storage-class": "EXPRESS_ONEZONE"}),
    "stored-compressed": Dialect(headers={"Content-Encoding": "gzip"}),
    "ranges-ignored": Dialect(ranges="ignored"),
    "ranges-ignored-without-length": Dialect(
        ranges="ignored", omits_headers=frozenset({"Content-Length"})
    ),
    "short-answers": Dialect(ranges="short"),
    "ranges-416": Dialect(rejects={"range": Rejection(416, "InvalidRange", "no")}),
    "ranges-501": Dialect(rejects={"range": Rejection(501, "NotImplemented", "no")}),
    "conditions-501": Dialect(rejects={"conditional": Rejection(501, "NotImplemented", "no")}),
    **{
        f"conditions-{status}": Dialect(rejects={"conditional": Rejection(status)})
        for status in (400, 405, 412)
    },
    **{
        f"head-{status}": Dialect(rejects={"head": Rejection(status)})
        for status in (400, 429, 500, 503)
    },
    "head-redirected": Dialect(
        rejects={"head": Rejection(302, headers={"Location": "http://elsewhere.example/"})}
    ),
    "head-403": Dialect(rejects={"head": Rejection(403)}),
    "head-404": Dialect(rejects={"head": Rejection(404)}),
    "head-405": Dialect(rejects={"head": Rejection(405)}),
    "head-501": Dialect(rejects={"head": Rejection(501)}),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_an_answer_may_leave_out_is_done_without(aim: Aim, name: str) -> None:
    done = await fetched(aim, ANSWERS[name], OBJECTS)
    assert done.exit_code == 0, done.message
    assert below(aim.folder / "cache") == FILES


async def test_an_object_rewritten_with_the_same_size_is_noticed() -> None:
    """Ranges of the earlier version may be on disk already."""
    no_times = Dialect(omits=frozenset({"LastModified"}))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(dialect_store(no_times, {"org/model/a": b"before"}))
        source = await stack.enter_async_context(
            open_s3(S3Uri("models", "org/model"), env(store), Limits())
        )
        listing = await source.listing()
        store.objects["org/model/a"] = b"after!"
        with pytest.raises(Failure, match="changed at the source"):
            await source.expected_checksums(listing.files[0])


@pytest.mark.parametrize("status", [400, 403, 404, 405, 416, 500, 501, 503])
async def test_a_multipart_head_that_is_rejected_costs_only_its_check(
    aim: Aim, status: int
) -> None:
    dialect = Dialect(etag=f'"{"0" * 32}-3"', rejects={"part-head": Rejection(status)})
    done = await fetched(aim, dialect, OBJECTS)
    assert done.exit_code == 0, done.message
    assert below(aim.folder / "cache") == FILES


async def test_a_redirected_multipart_head_costs_only_its_check(aim: Aim) -> None:
    elsewhere = Rejection(302, headers={"Location": "http://elsewhere.example/"})
    assert (
        await fetched(
            aim, Dialect(etag=f'"{"0" * 32}-3"', rejects={"part-head": elsewhere}), OBJECTS
        )
    ).exit_code == 0


async def test_without_conditions_the_etag_of_a_reply_shows_a_change() -> None:
    never = Dialect(
        rejects={"conditional": Rejection(412, "PreconditionFailed")},
        omits=frozenset({"LastModified"}),
    )
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(dialect_store(never, {"org/model/a": b"before"}))
        source = await stack.enter_async_context(
            open_s3(S3Uri("models", "org/model"), env(store), Limits())
        )
        [file] = (await source.listing()).files
        await source.expected_checksums(file)
        with pytest.raises(Retryable):
            await stack.enter_async_context(source.open_whole(file))
        store.objects["org/model/a"] = b"after!"
        with pytest.raises(Failure, match="changed at the source"):
            await stack.enter_async_context(source.open_whole(file))


async def test_a_head_that_ignores_the_part_costs_only_its_check(aim: Aim) -> None:
    assert (await fetched(aim, Dialect(etag=f'"{"0" * 32}-3"'), OBJECTS)).exit_code == 0


async def test_a_multipart_digest_is_checked_where_parts_are_known(aim: Aim) -> None:
    done = await fetched(
        aim,
        Dialect(etag=f'"{"0" * 32}-2"', part_bytes=150_000),
        {"org/model/w": os.urandom(200_000)},
    )
    assert (done.exit_code, "multipart_md5" in done.message) == (13, True)


async def test_a_whole_file_instead_of_a_range_is_read_once(aim: Aim) -> None:
    async with dialect_store(
        Dialect(ranges="ignored"), {f"org/model/{n}": os.urandom(300_000) for n in range(3)}
    ) as store:
        aim.env = env(store)
        done = await aim("fetch", URI, str(aim.folder / "cache"))
        assert done.exit_code == 0
        assert below(aim.folder / "cache") == {
            key.removeprefix("org/model/"): value for key, value in store.objects.items()
        }
    progress = [line["bytes"] for line in done.lines if line["event"] == "progress"]
    assert max(progress) == progress[-1] == 900_000


WRONG_ANSWERS = {
    "other-bytes": (Dialect(ranges="shifted"), "where"),
    "another-total": (Dialect(ranges="of-another-total"), "the file has changed"),
    "compressed": (Dialect(compresses=True), "gzip: something on the way compresses"),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_other_bytes_than_those_requested_are_never_taken(aim: Aim, name: str) -> None:
    dialect, text = WRONG_ANSWERS[name]
    done = await fetched(aim, dialect, {"org/model/w": os.urandom(200_000)})
    assert (done.exit_code, text in done.message) == (20, True), done.message
    assert not (aim.folder / "cache" / "w").exists()


# --- what a store answers instead


def listing(
    status: int, code: str = "", message: str = "", body: str = "", **headers: str
) -> Dialect:
    return Dialect(
        rejects={
            "all": Rejection(
                status,
                code,
                message,
                body,
                {name.replace("_", "-"): value for name, value in headers.items()},
            )
        }
    )


INSTEAD: dict[str, tuple[Dialect, int, tuple[str, ...]]] = {
    "301": (
        listing(301, Location="https://s3.example.org/models"),
        10,
        ("redirects to https://s3.example.org/models", "correct endpointUrl"),
    ),
    "302": (
        listing(302, Location="https://s3.example.org/"),
        10,
        ("redirects to https://s3.example.org/",),
    ),
    "303": (listing(303, Location="/login?next=secret"), 10, ("redirects to /login",)),
    "307": (
        listing(307, Location="https://s3.example.org/"),
        10,
        ("redirects to https://s3.example.org/",),
    ),
    "308": (
        listing(308, Location="https://s3.example.org/"),
        10,
        ("redirects to https://s3.example.org/",),
    ),
    "301-to-nowhere": (
        listing(301, "PermanentRedirect", "use another"),
        10,
        ("redirects to an address that it does not give",),
    ),
    "login-page": (
        Dialect(page=HTML),
        20,
        ("answers with text/html that is no listing", "correct endpointUrl"),
    ),
    "empty-page": (Dialect(page=" "), 20, ("answers with an empty page",)),
    "broken-page": (Dialect(page="<html><br>"), 20, ("answers with text/html that is no listing",)),
    "error-with-200": (
        listing(200, "SlowDown", "Reduce"),
        20,
        ("gave up after 5 tries", "SlowDown: Reduce"),
    ),
    "error-page": (listing(403, body=HTML), 11, ("403", "Sign in")),
    "plain-text": (
        listing(400, body="Client sent an HTTP request to an HTTPS server."),
        20,
        ("sent an HTTP request to an HTTPS server",),
    ),
    "oss": (
        listing(403, "SecondLevelDomainForbidden", "Use virtual hosted style."),
        11,
        ("AIM_S3_0_ADDRESSING=virtual",),
    ),
    "tos": (
        listing(400, "InvalidPathAccess", "path access is not allowed"),
        11,
        ("AIM_S3_0_ADDRESSING=virtual",),
    ),
    "obs": (listing(400, "VirtualHostDomainRequired", "no"), 11, ("AIM_S3_0_ADDRESSING=virtual",)),
    "cos": (listing(403, "PathStyleDomainForbidden", "no"), 11, ("AIM_S3_0_ADDRESSING=virtual",)),
    "clock": (
        listing(403, "RequestTimeTooSkewed", "The difference is too large."),
        20,
        ("the clock of the node",),
    ),
    "expired": (
        listing(400, "ExpiredToken", "The provided token has expired."),
        11,
        ("token has expired", "have expired"),
    ),
    "signature": (
        listing(403, "SignatureDoesNotMatch", "The signature does not match."),
        11,
        ("check the access key",),
    ),
    "unknown-key": (
        listing(403, "InvalidAccessKeyId", "It does not exist in our records."),
        11,
        ("check the access key",),
    ),
    "region": (
        listing(400, "AuthorizationHeaderMalformed", "the region is wrong"),
        11,
        ("set the region",),
    ),
    "disabled": (
        listing(403, "AllAccessDisabled", "All access is disabled"),
        11,
        ("ask the operator of the store",),
    ),
    "account": (
        listing(403, "AccountProblem", "There is a problem with your account"),
        11,
        ("ask the operator of the store",),
    ),
    "no-bucket": (
        listing(404, "NoSuchBucket", "It does not exist"),
        10,
        ("no such bucket", "NoSuchBucket"),
    ),
    "denied": (
        listing(403, "AccessDenied", "Access Denied."),
        11,
        ("Access Denied.", "may list and get"),
    ),
    "kms": (
        listing(403, "AccessDenied", "not authorized to perform: kms:Decrypt"),
        11,
        ("not authorized", "allow kms:Decrypt"),
    ),
    "kms-disabled": (
        listing(400, "KMS.DisabledException", "key is disabled"),
        11,
        ("key is disabled", "KMS.DisabledException"),
    ),
    "slow-down": (
        listing(503, "SlowDown", "Reduce your request rate", Retry_After="0"),
        20,
        ("gave up after 5 tries", "Reduce your"),
    ),
    "internal": (
        listing(500, "InternalError", "We encountered an error"),
        20,
        ("gave up after 5 tries",),
    ),
    "too-many": (listing(429, body="rate limited"), 20, ("gave up after 5 tries", "rate limited")),
    "odd": (listing(400, "OddRequest", "a teapot"), 20, ("OddRequest: a teapot",)),
    "unavailable": (listing(503, body=HTML), 20, ("gave up after 5 tries", "Sign in")),
}


@pytest.mark.parametrize("name", INSTEAD)
async def test_what_a_store_answers_instead_is_named(aim: Aim, name: str) -> None:
    dialect, code, text = INSTEAD[name]
    async with dialect_store(dialect, OBJECTS) as store:
        aim.env = env(store)
        done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert done.exit_code == code, done.message
    assert [word for word in text if word not in done.message] == []
    assert len(store.requests) <= 5
    assert "next=secret" not in done.message


@pytest.mark.parametrize("name", INSTEAD)
async def test_the_next_store_is_tried_after_any_failure(aim: Aim, name: str) -> None:
    async with (
        dialect_store(INSTEAD[name][0], OBJECTS) as first,
        dialect_store(Dialect(), OBJECTS) as second,
    ):
        aim.env = env(first, 0) | env(second, 1)
        done = await aim("fetch", URI, str(aim.folder / "cache"))
    assert done.exit_code == 0, done.message
    assert below(aim.folder / "cache") == FILES


@pytest.mark.parametrize(
    "endpoint",
    ["not an address", "http://[::1", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://"],
)
async def test_the_next_store_is_tried_after_a_malformed_endpoint(aim: Aim, endpoint: str) -> None:
    async with dialect_store(Dialect(), OBJECTS) as second:
        aim.env = env(second, 0, ENDPOINT_URL=endpoint)
        assert (await aim("size", URI)).exit_code == 20
        aim.env |= env(second, 1)
        assert (await aim("size", URI)).exit_code == 0


READING = {
    "archived": (
        Rejection(403, "InvalidObjectState", "Not valid for the object's storage class"),
        11,
        "restore it",
    ),
    "kms": (
        Rejection(403, "AccessDenied", "not authorized to perform kms:Decrypt"),
        11,
        "allow kms:Decrypt",
    ),
    "denied": (
        Rejection(403, "AccessDenied", "Access Denied by policy p-1"),
        11,
        "Access Denied by policy p-1",
    ),
    "customer-key": (
        Rejection(400, "InvalidRequest", "stored using a form of Server Side Encryption"),
        11,
        "customer's key",
    ),
    "redirect": (
        Rejection(302, headers={"Location": "https://s3.example.org/x?X-Amz-Signature=abc"}),
        20,
        "redirects to https://s3.example.org/x",
    ),
    "gone": (Rejection(404, "NoSuchKey", "gone"), 20, "changed at the source"),
    "odd": (Rejection(400, "OddRequest", "a teapot"), 20, "a teapot"),
}


@pytest.mark.parametrize("name", READING)
async def test_why_a_listed_object_is_not_read_is_named(aim: Aim, name: str) -> None:
    rejection, code, text = READING[name]
    done = await fetched(aim, Dialect(rejects={"get": rejection}), OBJECTS)
    assert (done.exit_code, text in done.message) == (code, True), done.message
    assert "Signature=abc" not in done.message


async def test_a_region_that_the_store_names_is_used(aim: Aim) -> None:
    """Amazon's redirects between regions are botocore's to follow; it asks again, signed for the
    region of the header."""
    away = Rejection(
        301, "PermanentRedirect", "use another", headers={"x-amz-bucket-region": "eu-north-1"}
    )
    async with dialect_store(Dialect(rejects={"all": away}), OBJECTS) as store:
        aim.env = env(store)
        done = await aim("size", URI)
    assert (done.exit_code, "PermanentRedirect" in done.message) == (10, True)
    assert len(store.requests) == 2


SECRETS = [
    (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240101/us-east-1/s3/aws4_request,"
        " Signature=f00df00d"
    ),
    "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abcdefgh",
    "see https://s3.example.org/x?X-Amz-Credential=f00df00d&X-Amz-Signature=f00df00d",
    "the key AKIAIOSFODNN7EXAMPLE is unknown",
    "your secret a-secret-key-9c41 is wrong",
    "x-amz-security-token: f00df00d",
    "Authorization: AWS AKID:f00df00d=",
]
SECRET_PARTS = (
    "f00df00d",
    "AKIDEXAMPLE",
    "eyJhbGci",
    "AKIAIOSFODNN7EXAMPLE",
    KEYS["SECRET_ACCESS_KEY"],
    KEYS["ACCESS_KEY_ID"],
)


@pytest.mark.parametrize("secret", SECRETS)
async def test_a_server_that_repeats_what_is_secret_is_not_quoted(aim: Aim, secret: str) -> None:
    done = await fetched(aim, listing(403, "AccessDenied", f"refused: {secret} and more"), OBJECTS)
    text = json.dumps(done.lines) + done.termination
    assert "refused" in done.message
    assert [part for part in SECRET_PARTS if part in text] == []


async def test_a_long_error_text_is_cut_at_a_space(aim: Aim) -> None:
    done = await fetched(
        aim, listing(403, "AccessDenied", "why\n\x1b[31m " + "word " * 500 + "x" * 2000), OBJECTS
    )
    assert (done.exit_code, len(done.message) < 600) == (11, True)
    assert "\n" not in done.message
    assert "\x1b" not in done.message


# --- addressing


@pytest.mark.parametrize(
    ("addressing", "code"),
    [("virtual", 0), ("path", 11), ("auto", 11), ("", 11)],
)
async def test_a_store_may_want_the_bucket_in_the_host_name(
    tmp_path: Path, addressing: str, code: int
) -> None:
    """The store is its own proxy, so that the host name needs no resolver."""
    async with dialect_store(Dialect(virtual_hosted_only=True), OBJECTS) as store:
        address = env(store, ENDPOINT_URL=f"http://localhost:{store.port}", ADDRESSING=addressing)
        outcome = await run_alone(
            address | {"HTTP_PROXY": store.endpoint_url}, "fetch", URI, str(tmp_path / "cache")
        )
        hosts = {requested.split()[1].partition(":")[0] for requested in store.requests}
    assert outcome["exit_code"] == code, outcome
    assert hosts == {"models.localhost" if addressing == "virtual" else "localhost"}
    assert code or below(tmp_path / "cache") == FILES


async def run_alone(variables: dict[str, str], *argv: str) -> dict[str, Any]:
    """In a separate process; returns its result."""
    program = [sys.executable, "-m", "aim_downloader", *argv]
    child = await asyncio.create_subprocess_exec(
        *program, stdout=asyncio.subprocess.PIPE, env=variables
    )
    out, _ = await child.communicate()
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


async def test_an_unknown_addressing_style_names_the_variable(aim: Aim) -> None:
    async with dialect_store(Dialect(), OBJECTS) as store:
        aim.env = env(store, 7, ADDRESSING="virtualhost")
        done = await aim("size", URI)
    assert done.exit_code == 11
    assert done.message == "AIM_S3_7_ADDRESSING is 'virtualhost': set it to path, virtual or auto"


def test_the_stand_in_computes_etags_as_amazon_does() -> None:
    store = Store(Dialect(), "models", OBJECTS)
    assert store._etag(b"{}") == f'"{hashlib.md5(b"{}", usedforsecurity=False).hexdigest()}"'
