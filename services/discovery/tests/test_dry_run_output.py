"""What is accepted of an image's answer."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_discovery.dry_run_output import LARGEST_LOG_BYTES, BadOutputError, digest_log, parse
from aimschema.discovery_result import LARGEST_ELEMENT_BYTES

ANSWER = [
    {
        "filename": "a",
        "profile": {},
        "models": [{"name": "m", "source": "hf://org/model", "size_gb": 16}],
    }
]
TEXT = json.dumps(ANSWER)


def with_models(*models: Any) -> str:
    return json.dumps([{"models": list(models)}])


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(TEXT, id="the-whole"),
        pytest.param(f"INFO starting\n{TEXT}\nbye", id="among-noise"),
        pytest.param("[{'python': 'repr'}]\n" + json.dumps(ANSWER, indent=2), id="over-many-lines"),
        pytest.param('[{"models": []}]\n' + TEXT, id="the-last-one-counts"),
        pytest.param(TEXT + '\n[{"models": [', id="a-torn-one-after-it"),
        pytest.param(f"[2030-01-01] [INFO] {TEXT}", id="after-a-prefix-in-brackets"),
        pytest.param("\ufeff\r\n" + TEXT + "\r\n", id="byte-order-mark"),
    ],
)
def test_an_answer_is_found(log: str) -> None:
    assert parse(log).sources == ["hf://org/model"]


@pytest.mark.parametrize(
    ("log", "text"),
    [
        pytest.param("", "(empty)", id="nothing"),
        pytest.param("a\nb", "a | b", id="no-json"),
        pytest.param("[]", "empty list", id="empty-list"),
        pytest.param("[1]", "unexpected form", id="not-an-object"),
        pytest.param(with_models(), "names no models", id="no-models"),
        pytest.param(with_models({"name": "m"}), "source", id="no-source"),
        pytest.param(
            with_models({"name": "m", "source": "http://x/y"}),
            "hf://owner/name",
            id="another-scheme",
        ),
        pytest.param(
            with_models({"name": "m", "source": "hf://a b"}),
            "hf://owner/name",
            id="space-in-the-source",
        ),
        pytest.param(
            with_models({"name": "m", "source": "s3://a/../b"}),
            "hf://owner/name",
            id="dots-in-the-source",
        ),
        pytest.param(
            with_models({"name": "m", "source": "hf://" + "a" * 1100}),
            "hf://owner/name",
            id="source-too-long",
        ),
        pytest.param(
            with_models({"name": "m", "source": "hf://a/b", "size_gb": -1}),
            "size_gb",
            id="negative-size",
        ),
        pytest.param(
            with_models({"name": "m" * (300 << 10), "source": "hf://a/b"}),
            "bytes long",
            id="element-too-long",
        ),
        pytest.param('[{"a": ' + "9" * 5000 + "}]", "no JSON array", id="number-too-long"),
        pytest.param('[{"a": "\\ud800"}]', "", id="half-a-character"),
        pytest.param('[{"a": ' + "[" * 900 + "]" * 900 + "}]", "", id="deep"),
        pytest.param('[{"a": ' + "[" * 90000, "no JSON array", id="deeper-than-the-parser"),
    ],
)
def test_malformed_output_is_reported(log: str, text: str) -> None:
    with pytest.raises(BadOutputError) as caught:
        parse(log)
    assert text in str(caught.value)


HOSTILE = [
    pytest.param('[{"a":' * 300_000, id="nested"),
    pytest.param('[{"a":"' * 300_000, id="quoted"),
    pytest.param('[{"a":1]' * 300_000, id="broken"),
    pytest.param('[{"\n' * 800_000, id="torn"),
    pytest.param("\n" * 3_000_000 + '[{"\n' * 100_000, id="torn-after-many-lines"),
    pytest.param("[{},{" * 600_000, id="many-small-ones"),
    pytest.param('[{"' + "\N{GRINNING FACE}" * 800_000, id="wide-characters"),
    pytest.param("a\n" * 1_500_000, id="lines"),
]


@pytest.mark.parametrize("log", HOSTILE)
def test_a_hostile_log_takes_seconds_at_most(log: str) -> None:
    started_s = time.monotonic()
    with pytest.raises(BadOutputError):
        parse(log)
    assert time.monotonic() - started_s < 20


@pytest.mark.parametrize("log", HOSTILE)
def test_little_of_a_log_is_stored(log: str) -> None:
    digest = digest_log(log.encode())
    assert digest.answer == ""
    assert len(digest.problem.encode()) + len(digest.last_lines.encode()) < 16 << 10


def test_only_the_answer_is_stored() -> None:
    digest = digest_log(f"{'noise ' * 500_000}\n{TEXT}".encode())
    assert parse(f"[{digest.answer}]").sources == ["hf://org/model"]
    assert len(digest.answer) < LARGEST_ELEMENT_BYTES
    assert len(digest.last_lines) < 16 << 10


def test_an_answer_is_found_after_torn_ones() -> None:
    assert parse('[{"torn": \n' * 100 + "x" * (1 << 20) + '[{"torn": ' * 100 + TEXT).sources == [
        "hf://org/model"
    ]


def test_nothing_of_an_oversized_log_is_stored() -> None:
    digest = digest_log(b"x" * (LARGEST_LOG_BYTES + 1))
    assert (digest.answer, digest.problem) == ("", "the log is longer than 4 MiB")


NOISE = st.text(st.characters(exclude_categories=["Cs"])).map(
    lambda text: text.replace("[", "(").replace("{", "<")
)


@settings(max_examples=200, deadline=None)
@given(before=NOISE, after=NOISE)
def test_noise_around_an_answer_does_not_matter(before: str, after: str) -> None:
    assert parse(f"{before}{TEXT}{after}").sources == ["hf://org/model"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@settings(max_examples=300, deadline=None)
@given(
    log=st.text()
    | JSON.map(json.dumps)
    | st.lists(st.sampled_from(["[", "{", "]", "}", '"a":', "1", ",", TEXT])).map("".join)
)
def test_nothing_but_bad_output_is_raised(log: str) -> None:
    with contextlib.suppress(BadOutputError):
        assert parse(log).models
