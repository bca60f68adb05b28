"""The parts without I/O: URIs, ranges, names, the stores' verdict, digests, records, lines."""

from __future__ import annotations

import hashlib
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aim_downloader.checksums import Digests
from aim_downloader.exit_codes import EXIT_CODE, Failure, Outcome, Retryable
from aim_downloader.hub import Hub, error_of_response
from aim_downloader.manifest import (
    Entry,
    Manifest,
    decode,
    decode_journal,
    encode,
    obsolete_paths,
    recorded_entries,
    reusable_entries,
)
from aim_downloader.paths import is_own, require_safe
from aim_downloader.progress import Meter
from aim_downloader.ranges import cut
from aim_downloader.report import (
    TERMINATION_BYTES_MAX,
    Result,
    redact,
    secrets_in,
    termination_message,
)
from aim_downloader.s3 import checksums_of, revision_of
from aim_downloader.source import ExpectedChecksums, Listing, SourceFile
from aim_downloader.store_errors import Answer, Kind, failure_from_answers
from aim_downloader.stores import Store, stores_from
from aim_downloader.uri import HubUri, S3Uri, SourceUri, UriError, parse_uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("hf://org/Model-8B", HubUri("org", "Model-8B")),
        ("hf://org/model.v1_x@main", HubUri("org", "model.v1_x", "main")),
        ("hf://org/model@refs/pr/7", HubUri("org", "model", "refs/pr/7")),
        ("s3://bucket/org/model", S3Uri("bucket", "org/model")),
        ("s3://bucket/org/model/", S3Uri("bucket", "org/model")),
        ("s3://bucket", S3Uri("bucket", "")),
        ("s3://my.bucket-1/a b".replace(" ", "%20"), S3Uri("my.bucket-1", "a%20b")),
    ],
)
def test_a_source_uri_is_taken_apart(text: str, uri: SourceUri) -> None:
    assert parse_uri(text) == uri


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "hf:// or s3://"),
        ("org/model", "hf:// or s3://"),
        ("https://huggingface.co/org/model", "hf:// or s3://"),
        ("hf://org", "owner/name"),
        ("hf://org/", "owner/name"),
        ("hf://org/model/file", "owner/name"),
        ("hf://../..", "owner/name"),
        ("hf://org/model@", "no revision"),
        ("hf://org/model@../../x", "no revision"),
        ("hf://org/mo del", "space"),
        ("s3://", "no bucket name"),
        ("s3:///key", "no bucket name"),
        ("s3://Bucket/key", "no bucket name"),
        ("s3://bucket/key\n", "space"),
    ],
)
def test_a_malformed_source_uri_is_rejected_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(UriError, match=fault):
        parse_uri(text)


@given(size=st.integers(0, 10_000), step=st.integers(1, 3_000))
def test_ranges_cover_a_file_exactly_and_in_order(size: int, step: int) -> None:
    ranges = cut(size, step)
    assert [rng.start for rng in ranges] == [0, *(rng.end for rng in ranges)][: len(ranges)]
    assert sum(rng.size_bytes for rng in ranges) == size
    assert all(0 < rng.size_bytes <= step for rng in ranges)


@pytest.mark.parametrize(
    ("paths", "fault"),
    [
        (["../x"], "'..'"),
        (["a/../b"], "'..'"),
        (["/etc/passwd"], "absolute"),
        (["a//b"], "empty"),
        (["."], "'.'"),
        (["a\x00b"], "no file name"),
        (["x" * 256], "255 bytes"),
        (["a", "a"], "twice"),
        (["a/b", "a"], "file and as the folder"),
    ],
)
def test_names_that_cannot_be_files_below_dest_are_rejected(paths: list[str], fault: str) -> None:
    with pytest.raises(Failure, match=fault) as caught:
        require_safe(paths)
    assert caught.value.outcome is Outcome.NOT_FOUND


def test_odd_names_that_stay_below_dest_are_fine() -> None:
    require_safe(["...", "..a", "a b", "ä/ö", "-rf", ".hidden", "x" * 255])
    assert [
        is_own(path)
        for path in (".aim-manifest.json", ".aim-part/journal", "a/.aim-part", ".aim-parts")
    ] == [True, True, False, False]


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [
        (["no_access"], Outcome.NO_ACCESS),
        (["no_access", "no_access"], Outcome.NO_ACCESS),
        (["empty"], Outcome.NOT_FOUND),
        (["not_there", "no_access"], Outcome.NOT_FOUND),
        (["no_access", "transient"], Outcome.TRANSIENT),
        (["empty", "transient"], Outcome.TRANSIENT),
        (["transient"], Outcome.TRANSIENT),
    ],
)
def test_the_stores_answers_add_up(kinds: list[Kind], outcome: Outcome) -> None:
    failure = failure_from_answers(
        "s3://bucket/key",
        [Answer(f"store{number}", kind, "why") for number, kind in enumerate(kinds)],
    )
    assert failure.outcome is outcome
    assert all(f"store{number}: " in failure.message for number in range(len(kinds)))


def test_stores_come_in_the_order_of_their_numbers() -> None:
    env = {
        "AIM_S3_10_REGION": "eu",
        "AIM_S3_2_ENDPOINT_URL": "http://user:word@s3:9000/",
        "AIM_S3_2_ACCESS_KEY_ID": "k",
        "AIM_S3_X_REGION": "no",
    }
    assert stores_from(env) == (
        Store(endpoint_url="http://user:word@s3:9000/", access_key_id="k"),
        Store(region="eu"),
    )
    assert [store.label for store in stores_from(env)] == ["http://s3:9000", "AWS eu"]
    assert stores_from({}) == (Store(),)


@pytest.mark.parametrize(
    ("env", "style"),
    [
        ({}, "auto"),
        ({"AIM_S3_0_REGION": "eu"}, "auto"),
        ({"AIM_S3_0_ENDPOINT_URL": "http://s3"}, "path"),
        ({"AIM_S3_0_ENDPOINT_URL": "http://s3", "AIM_S3_0_ADDRESSING": "auto"}, "path"),
        ({"AIM_S3_0_ENDPOINT_URL": "http://s3", "AIM_S3_0_ADDRESSING": " "}, "path"),
        ({"AIM_S3_0_ENDPOINT_URL": "http://s3", "AIM_S3_0_ADDRESSING": "virtual"}, "virtual"),
        ({"AIM_S3_0_ENDPOINT_URL": "http://s3", "AIM_S3_0_ADDRESSING": "Virtual\n"}, "virtual"),
        ({"AIM_S3_0_REGION": "eu", "AIM_S3_0_ADDRESSING": "path"}, "path"),
    ],
)
def test_the_bucket_goes_where_the_store_wants_it(env: dict[str, str], style: str) -> None:
    assert stores_from(env)[0].addressing_style == style


@pytest.mark.parametrize("value", ["paths", "virtual-hosted", "true"])
def test_an_unknown_addressing_style_names_its_variable(value: str) -> None:
    with pytest.raises(Failure, match=f"AIM_S3_3_ADDRESSING is '{value}'") as caught:
        stores_from({"AIM_S3_3_ADDRESSING": value})
    assert caught.value.outcome is Outcome.NO_ACCESS


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, 0.0),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api";r=12;t=55'}, 0.0),
        ({"RateLimit": "nonsense"}, 0.0),
    ],
)
def test_the_hub_gets_no_request_before_its_retry_after(
    headers: dict[str, str], wait_s: float
) -> None:
    problem = error_of_response(HubUri("org", "model"), Hub("https://hub", None), 429, headers)
    assert isinstance(problem, Retryable)
    assert problem.retry_after_s == wait_s


def test_a_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    problem = error_of_response(
        HubUri("org", "model"), Hub("https://hub", None), 503, {"Retry-After": date}
    )
    assert isinstance(problem, Retryable)
    assert 290 < problem.retry_after_s <= 300


@pytest.mark.parametrize(
    ("url", "is_home"),
    [
        ("http://hub/api", True),
        ("https://hub/api", True),
        ("https://hub:444/api", False),
        ("https://other/api", False),
        ("http://hub:8080/api", False),
    ],
)
def test_a_token_goes_to_the_hub_and_to_its_https_only(url: str, is_home: bool) -> None:
    assert Hub("http://hub", "hf_secret").is_home(URL(url)) is is_home


def test_a_token_never_goes_from_https_to_http() -> None:
    assert not Hub("https://hub", "hf_secret").is_home(URL("http://hub/api"))


CONTENT = bytes(range(256)) * 40


def md5(content: bytes) -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)


def multipart(content: bytes, part_bytes: int) -> str:
    parts = [md5(content[rng.start : rng.end]).digest() for rng in cut(len(content), part_bytes)]
    return f"{md5(b''.join(parts)).hexdigest()}-{len(parts)}"


RIGHT = {
    "sha256": ExpectedChecksums(sha256=hashlib.sha256(CONTENT).hexdigest()),
    "git_sha1": ExpectedChecksums(
        git_sha1=hashlib.sha1(b"blob 10240\0" + CONTENT, usedforsecurity=False).hexdigest()
    ),
    "md5": ExpectedChecksums(md5=md5(CONTENT).hexdigest()),
    "crc32": ExpectedChecksums(crc32=f"{zlib.crc32(CONTENT):08x}"),
    "multipart_md5": ExpectedChecksums(multipart_md5=multipart(CONTENT, 4000), part_bytes=4000),
    "multipart_md5 of whole parts": ExpectedChecksums(
        multipart_md5=multipart(CONTENT, 5120), part_bytes=5120
    ),
}


@pytest.mark.parametrize("chunk_bytes", [1, 999, 4000, 20_000])
@pytest.mark.parametrize("name", RIGHT)
def test_each_digest_notices_one_wrong_bit(name: str, chunk_bytes: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[5119] ^= 4
    for content, mismatches in ((CONTENT, []), (bytes(wrong), [name.partition(" ")[0]])):
        digests = Digests(len(content), RIGHT[name])
        for rng in cut(len(content), chunk_bytes):
            digests.update(content[rng.start : rng.end])
        assert (digests.sha256, digests.mismatches()) == (
            hashlib.sha256(content).hexdigest(),
            mismatches,
        )


SHA256_OF_1 = "a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s="


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param({"ETag": f'"{"a" * 32}"'}, ExpectedChecksums(md5="a" * 32), id="plain"),
        pytest.param(
            {"ETag": f'"{"a" * 32}-3"'},
            ExpectedChecksums(multipart_md5="a" * 32 + "-3"),
            id="multipart",
        ),
        pytest.param(
            {"ETag": f'"{"a" * 32}"', "ServerSideEncryption": "aws:kms"},
            ExpectedChecksums(),
            id="encrypted-etag-is-no-md5",
        ),
        pytest.param(
            {"ETag": f'"{"a" * 32}"', "ServerSideEncryption": "AES256"},
            ExpectedChecksums(md5="a" * 32),
            id="encrypted-with-the-stores-key",
        ),
        pytest.param({"ETag": '"opaque"'}, ExpectedChecksums(), id="opaque"),
        pytest.param({"ETag": "a" * 32}, ExpectedChecksums(md5="a" * 32), id="without-quotes"),
        pytest.param({"ETag": f'"{"A" * 32}"'}, ExpectedChecksums(md5="a" * 32), id="in-capitals"),
        pytest.param(
            {"ETag": f'"{"A" * 32}-3"'},
            ExpectedChecksums(),
            id="multipart-in-capitals-is-another-maker's",
        ),
        pytest.param({"ETag": f'W/"{"a" * 32}"'}, ExpectedChecksums(), id="weak"),
        pytest.param({"ETag": None}, ExpectedChecksums(), id="none"),
        pytest.param({}, ExpectedChecksums(), id="nothing"),
        pytest.param(
            {"ETag": f'"{"a" * 32}"', "ServerSideEncryption": "aws:fsx"},
            ExpectedChecksums(),
            id="encrypted-in-a-way-to-come",
        ),
        pytest.param(
            {"ETag": f'"{"a" * 32}"', "SSECustomerAlgorithm": "AES256"},
            ExpectedChecksums(),
            id="encrypted-with-a-customer's-key",
        ),
        pytest.param(
            {"ETag": f'"{"a" * 32}"', "StorageClass": "EXPRESS_ONEZONE"},
            ExpectedChecksums(),
            id="directory-bucket",
        ),
        pytest.param(
            {"ChecksumSHA256": SHA256_OF_1},
            ExpectedChecksums(sha256=hashlib.sha256(b"1").hexdigest()),
            id="sha256",
        ),
        pytest.param(
            {"ChecksumCRC32": "g9zvtw=="},
            ExpectedChecksums(crc32=f"{zlib.crc32(b'1'):08x}"),
            id="crc32",
        ),
        pytest.param(
            {"ChecksumSHA256": SHA256_OF_1, "ChecksumType": "COMPOSITE"},
            ExpectedChecksums(),
            id="checksum-of-parts",
        ),
        pytest.param(
            {"ChecksumSHA256": SHA256_OF_1 + "-2"},
            ExpectedChecksums(),
            id="checksum-of-parts-without-saying-so",
        ),
    ],
)
def test_the_checksums_that_a_head_response_gives(
    head: dict[str, str], expected: ExpectedChecksums
) -> None:
    assert checksums_of(head) == expected


def file(path: str, tag: str = "v1", size_bytes: int = 1) -> SourceFile:
    return SourceFile(path, size_bytes, tag, f"key/{path}")


def entry(path: str, tag: str = "v1", size_bytes: int = 1) -> Entry:
    return Entry(path=path, size_bytes=size_bytes, sha256="", tag=tag)


def test_only_files_in_the_listed_version_are_reusable() -> None:
    sizes = {"same": 1, "other-version": 1, "grown-on-disk": 2, "unknown": 1}
    entries = recorded_entries(
        Manifest(
            uri="",
            revision="",
            files=(entry("same", tag="v0"), entry("other-version", tag="v0"), entry("old")),
        ),
        [entry("same"), entry("grown-on-disk"), entry("deleted-on-disk")],
    )
    listing = Listing("r", tuple(file(path) for path in (*sizes, "deleted-on-disk")))
    assert list(reusable_entries(listing, entries, sizes.get)) == ["same"]
    assert obsolete_paths(listing, entries) == ["old"]


def test_records_that_are_torn_count_as_far_as_they_are_whole() -> None:
    manifest = Manifest(uri="s3://b/k", revision="r", files=(entry("a"),))
    assert decode(encode(manifest)) == manifest
    assert decode(encode(manifest)[:-5]) is None
    lines = [msgspec.json.encode(entry(path)) for path in ("a", "b")]
    assert decode_journal(b"\n".join(lines)[:-3]) == [entry("a")]


def test_the_revision_of_a_bucket_depends_on_objects_not_order() -> None:
    files = [file("a"), file("b")]
    others = [
        [file("a")],
        [file("a"), file("b", tag="v2")],
        [file("a"), file("b", size_bytes=2)],
        [file("a"), file("c")],
    ]
    assert revision_of(files) == revision_of(files[::-1])
    assert len({revision_of(each) for each in [files, *others]}) == 5


def test_every_outcome_has_an_exit_code_of_its_own() -> None:
    assert {outcome.value: EXIT_CODE[outcome] for outcome in Outcome} == {
        "done": 0,
        "not_found": 10,
        "no_access": 11,
        "no_space": 12,
        "checksum": 13,
        "transient": 20,
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("token hf_abc refused", "token *** refused"),
        (
            "header 'Bearer hf_line\\n' and hf_line\n. refused",
            "header 'Bearer ***\\n' and ***. refused",
        ),
        ("neither ' k3y ' nor 'k3y' is known", "neither '***' nor '***' is known"),
        ("GET https://cdn/x?X-Amz-Signature=1&b=2 failed", "GET https://cdn/x failed"),
        ("http://user:word@host/ is away", "http://host/ is away"),
        ("is it there? yes=no", "is it there? yes=no"),
        ("Authorization: Bearer abc.def was wrong", "Authorization: *** was wrong"),
        (
            "Credential=AKID/1/s3, SignedHeaders=host, Signature=00ff",
            "Credential=***, SignedHeaders=host, Signature=***",
        ),
        ("the key AKIAIOSFODNN7EXAMPLE is unknown", "the key *** is unknown"),
        ("allow s3:GetObject for these keys", "allow s3:GetObject for these keys"),
        ("The authorization header is malformed", "The authorization header is malformed"),
        (
            "Invalid credentials in Authorization header",
            "Invalid credentials in Authorization header",
        ),
    ],
)
def test_nothing_secret_is_printed(text: str, clean: str) -> None:
    secrets = secrets_in(
        {
            "HF_TOKEN": "hf_abc",
            "HUGGING_FACE_HUB_TOKEN": "hf_line\n",
            "AIM_S3_0_REGION": "there",
            "AIM_S3_0_ACCESS_KEY_ID": " k3y ",
            "AIM_S3_1_SECRET_ACCESS_KEY": "",
            "AIM_S3_2_SECRET_ACCESS_KEY": "\n",
        }
    )
    assert redact(text, secrets) == clean


@pytest.mark.parametrize("char", ["x", "ä", "\n", "\x01"])
def test_a_termination_message_fits_and_is_still_json(char: str) -> None:
    line = Result(
        outcome=Outcome.CHECKSUM,
        exit_code=13,
        message=char * 9000,
        uri="u",
        revision="",
        bytes=0,
        files=0,
        seconds=0.0,
    )
    data = termination_message(line)
    assert TERMINATION_BYTES_MAX - 200 < len(data) <= TERMINATION_BYTES_MAX
    assert msgspec.json.decode(data, type=Result).exit_code == 13


def test_the_meter_counts_no_existing_bytes_as_speed() -> None:
    meter = Meter(1000, 2)
    meter.add_existing(200, files=1)
    meter.add_existing(100)
    assert (meter.line(0.0).bytes, meter.line(0.0).seconds_left, meter.line(0.0).files_done) == (
        300,
        None,
        1,
    )
    meter.add_received(200, "weights")
    line = meter.line(2.0)
    assert (line.phase, line.bytes, line.rate, line.seconds_left, line.file) == (
        "downloading",
        500,
        100.0,
        5.0,
        "weights",
    )
    meter.add_received(500, "weights")
    meter.add_checked(300, "weights")
    line = meter.line(3.0)
    assert (line.phase, line.bytes) == ("verifying", 500)
