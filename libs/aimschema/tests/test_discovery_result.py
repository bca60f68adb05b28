"""The profile that an image prints: accepted where it has the promised form, rejected with a
message where not."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema.discovery_result import (
    GIB,
    LARGEST_ELEMENT_BYTES,
    RESULT_KEY,
    Discovered,
    check,
    digest,
    from_config_map,
)
from aimschema.labels import ANNOTATION_DIGEST

MODEL = {"name": "org/model", "source": "hf://org/model", "size_gb": 1.5}
PROFILE = {
    "model": "org/model",
    "quantized_model": "org/model-fp8",
    "metadata": {
        "engine": "vllm",
        "gpu": "MI300X",
        "precision": "fp8",
        "gpu_count": 1,
        "metric": "latency",
    },
    "engine_args": {"tensor-parallel-size": 1, "nested": {"a": [None, 1]}},
    "env_vars": {"A": "1", "B": 2, "C": True, "D": None, "E": 0.5},
}
ELEMENT: dict[str, Any] = {"filename": "vllm.yaml", "profile": PROFILE, "models": [MODEL]}


def element(**changed: Any) -> dict[str, Any]:
    return {**ELEMENT, **changed}


def model(**changed: Any) -> dict[str, Any]:
    return element(models=[{**MODEL, **changed}])


def test_a_whole_answer_is_taken() -> None:
    found = check(ELEMENT)
    assert found.sources == ["hf://org/model"]
    assert found.profile.metadata.gpu_count == 1
    assert found.profile.engine_args == PROFILE["engine_args"]
    assert found.profile.env_vars == PROFILE["env_vars"]
    assert found.models[0].size_bytes == GIB + GIB // 2


@pytest.mark.parametrize(
    ("given_element", "sources"),
    [
        pytest.param({"models": [MODEL]}, ["hf://org/model"], id="only-models"),
        pytest.param(
            element(profile=None, filename=None), ["hf://org/model"], id="nulls-count-as-left-out"
        ),
        pytest.param(
            element(profile={**PROFILE, "quantized_model": None, "metadata": None}),
            ["hf://org/model"],
            id="nulls-within",
        ),
        pytest.param(element(added="later"), ["hf://org/model"], id="unknown-fields"),
        pytest.param(
            element(models=[MODEL, {"name": "o", "source": "s3://bucket/o"}]),
            ["hf://org/model", "s3://bucket/o"],
            id="two-models",
        ),
        pytest.param(
            model(source="hf://org/model@refs/pr/1"), ["hf://org/model@refs/pr/1"], id="revision"
        ),
        pytest.param(
            model(name="meta/llama-3-8b:1.1+20240915"), ["hf://org/model"], id="canonical-name"
        ),
    ],
)
def test_answers_that_are_taken(given_element: Any, sources: list[str]) -> None:
    assert check(given_element).sources == sources


@pytest.mark.parametrize(
    ("given_element", "cause"),
    [
        pytest.param(element(models=[]), "names no models", id="no-models"),
        pytest.param({"filename": "x"}, "names no models", id="models-left-out"),
        pytest.param([], "unexpected form", id="a-list"),
        pytest.param("text", "unexpected form", id="a-text"),
        pytest.param(None, "unexpected form", id="null"),
        pytest.param(element(models={"a": 1}), "unexpected form", id="models-not-a-list"),
        pytest.param(model(source=None), "unexpected form", id="no-source"),
        pytest.param(model(size_gb="big"), "unexpected form", id="size-as-text"),
        pytest.param(
            element(profile={**PROFILE, "env_vars": {"A": {"b": 1}}}),
            "unexpected form",
            id="env-of-objects",
        ),
        pytest.param(model(source="https://host/model"), "not of the form", id="another-scheme"),
        pytest.param(model(source="hf:///etc/passwd"), "not of the form", id="no-owner"),
        pytest.param(model(source="hf://org/mo del"), "not of the form", id="space"),
        pytest.param(model(source="hf://org/model\n"), "not of the form", id="line-feed"),
        pytest.param(model(source="s3://bucket/../other"), "not of the form", id="parent-folder"),
        pytest.param(model(source="hf://org/" + "x" * 1020), "not of the form", id="too-long"),
        pytest.param(model(name=""), "model name", id="no-name"),
        pytest.param(model(name="a b"), "model name", id="name-with-a-space"),
        pytest.param(model(name="<b>a</b>"), "model name", id="name-with-markup"),
        pytest.param(model(name="-x"), "model name", id="name-like-an-option"),
        pytest.param(model(size_gb=-1), "not between 0", id="negative-size"),
        pytest.param(model(size_gb=1e300), "not between 0", id="size-beyond-reason"),
        pytest.param(element(filename="x" * LARGEST_ELEMENT_BYTES), "bytes long", id="too-large"),
        pytest.param(
            element(profile={"metadata": {"gpu_count": 1 << 70}}),
            "unexpected form",
            id="gpus-beyond-reason",
        ),
    ],
)
def test_answers_that_are_rejected(given_element: Any, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        check(given_element)


def test_endless_nesting_is_rejected() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        check(element(filename=deep))


@pytest.mark.parametrize(
    ("size_gb", "size_bytes"), [(0, None), (None, None), (0.5, GIB // 2), (207, 207 * GIB)]
)
def test_a_size_of_zero_is_unknown(size_gb: float | None, size_bytes: int | None) -> None:
    assert check(model(size_gb=size_gb)).models[0].size_bytes == size_bytes


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.just("hf://a/b"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*ELEMENT, *PROFILE, *MODEL]), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(JSON)
def test_anything_is_a_result_or_a_value_error(answer: Any) -> None:
    with contextlib.suppress(ValueError):
        assert check(answer).models


def stored(*, more: int = 0, **fields: Any) -> str:
    """The result as discovery writes it, with fields of the element, of its profile or of its
    model changed."""
    found = msgspec.to_builtins(check(model(size_gb=1)))
    for part in (found, found["profile"], found["models"][0]):
        part |= {name: fields.pop(name) for name in list(fields) if name in part}
    found["models"] = [*found["models"], *found["models"] * more]
    return msgspec.json.encode(found).decode()


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {}},
        {"metadata": {"annotations": None}},
        {"metadata": {"annotations": "x"}},
        {"metadata": {}, "data": 7},
    ],
)
def test_a_config_map_of_another_form_holds_nothing(body: dict[str, Any]) -> None:
    assert from_config_map({"data": {RESULT_KEY: stored()}} | body) is None


@pytest.mark.parametrize("value", [None, 7, ["x"], {"a": "b"}])
def test_a_value_that_is_no_text_is_no_result(value: Any) -> None:
    body = {
        "metadata": {"annotations": {ANNOTATION_DIGEST: digest({})}},
        "data": {RESULT_KEY: stored(), "other": value},
    }
    assert from_config_map(body) is None


def round_trip(found: Discovered) -> Discovered | None:
    data = {RESULT_KEY: msgspec.json.encode(found, order="deterministic").decode(), "image": "i:1"}
    return from_config_map(
        {"metadata": {"annotations": {ANNOTATION_DIGEST: digest(data)}}, "data": data}
    )


@given(JSON)
def test_what_was_accepted_is_accepted_when_it_is_read_back(answer: Any) -> None:
    with contextlib.suppress(ValueError):
        found = check(answer)
        assert round_trip(found) == found


@pytest.mark.parametrize("size", ["", ', "size_gb": 7'])
def test_the_largest_answer_is_accepted_when_it_is_read_back(size: str) -> None:
    """Written out it is longer than the image printed it."""
    one = f'{{"name": "a", "source": "hf://a/b"{size}}}'
    answer = msgspec.json.decode(f'{{"models": [{one}]}}')
    answer["models"] *= (LARGEST_ELEMENT_BYTES - 12) // (
        len(msgspec.json.encode(answer["models"][0])) + 1
    )
    found = check(answer)
    assert len(msgspec.json.encode(found)) > LARGEST_ELEMENT_BYTES
    assert round_trip(found) == found


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param(
            {RESULT_KEY: '{"models": [{"name": "a", "source": "hf://a/b"}]}'}, True, id="result"
        ),
        pytest.param({RESULT_KEY: "no json"}, False, id="edited-by-hand"),
        pytest.param({RESULT_KEY: '{"models": 3}'}, False, id="another-form"),
        pytest.param({"other": "{}"}, False, id="other-key"),
        pytest.param(None, False, id="no-data"),
        pytest.param({RESULT_KEY: stored(size_gb=1e308)}, False, id="a-size-that-overflows"),
        pytest.param(
            {RESULT_KEY: stored().replace("1.0", "1e400")}, False, id="a-size-without-end"
        ),
        pytest.param(
            {RESULT_KEY: stored().replace("1.0", "NaN")}, False, id="a-size-that-is-no-number"
        ),
        pytest.param({RESULT_KEY: stored(size_gb=-1)}, False, id="a-negative-size"),
        pytest.param({RESULT_KEY: stored(size_gb="1")}, False, id="a-size-as-text"),
        pytest.param({RESULT_KEY: stored(source="https://a/b")}, False, id="another-source"),
        pytest.param({RESULT_KEY: stored(source="s3://a/../b")}, False, id="a-source-that-climbs"),
        pytest.param({RESULT_KEY: stored(name="--evil")}, False, id="another-name"),
        pytest.param({RESULT_KEY: stored(more=200_000)}, False, id="models-without-end"),
        pytest.param(
            {RESULT_KEY: stored(filename="x" * LARGEST_ELEMENT_BYTES)}, False, id="text-without-end"
        ),
        pytest.param(
            {RESULT_KEY: stored(env_vars={"A": ["b"]})}, False, id="a-variable-that-is-a-list"
        ),
        pytest.param(
            {RESULT_KEY: stored(metadata={"gpu_count": -1})}, False, id="a-negative-count"
        ),
        pytest.param({RESULT_KEY: "[" * 100_000}, False, id="nested-without-end"),
        pytest.param({RESULT_KEY: "[]"}, False, id="a-list"),
        pytest.param({RESULT_KEY: "7"}, False, id="a-number"),
        pytest.param({RESULT_KEY: '{"models": []}'}, False, id="no-models"),
        pytest.param(
            {RESULT_KEY: '{"models": {"name": "a", "source": "hf://a/b"}}'},
            False,
            id="models-as-an-object",
        ),
    ],
)
def test_what_a_config_map_holds(data: dict[str, str] | None, found: bool) -> None:
    assert (
        isinstance(
            from_config_map(
                {"metadata": {"annotations": {ANNOTATION_DIGEST: digest(data or {})}}, "data": data}
            ),
            Discovered,
        )
        is found
    )


def test_an_answer_that_was_edited_counts_as_none() -> None:
    data = {RESULT_KEY: '{"models": [{"name": "a", "source": "hf://a/b"}]}', "image": "i:1"}
    config_map = {"metadata": {"annotations": {ANNOTATION_DIGEST: digest(data)}}, "data": data}
    assert from_config_map(config_map) is not None
    assert from_config_map({**config_map, "data": {**data, "image": "i:2"}}) is None
    assert from_config_map({**config_map, "metadata": {}}) is None
