"""Parsing the challenge of a 401 response."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_discovery.challenge import Challenge, challenges, choose

DOCKER = (
    "Bearer"
    ' realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        pytest.param(
            [DOCKER],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
            id="docker",
        ),
        pytest.param(
            ['BASIC  Realm = "x"'], [Challenge("basic", {"realm": "x"})], id="case-and-spaces"
        ),
        pytest.param(
            ['Basic realm="a\\"b"'], [Challenge("basic", {"realm": 'a"b'})], id="escaped-quote"
        ),
        pytest.param(["Bearer realm=x"], [Challenge("bearer", {"realm": "x"})], id="unquoted"),
        pytest.param(
            ['Negotiate, Basic realm="x", Bearer realm="y"'],
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "y"}),
            ],
            id="several-in-one",
        ),
        pytest.param(
            ['Basic realm="x"', "Bearer realm=y"],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
            id="several",
        ),
        pytest.param(["Negotiate"], [Challenge("negotiate")], id="no-parameters"),
        pytest.param([""], [], id="empty"),
        pytest.param(['="'], [], id="nonsense"),
    ],
)
def test_challenges(headers: list[str], found: list[Challenge]) -> None:
    assert challenges(headers) == found


def test_bearer_comes_before_basic_and_nothing_else_is_known() -> None:
    assert choose(challenges(['Basic realm="x", Bearer realm="y"'])) == Challenge(
        "bearer", {"realm": "y"}
    )
    assert choose(challenges(["Negotiate"])) is None


@given(st.lists(st.text(alphabet='Bearr ,="\\a\u00e9', max_size=200), max_size=3))
def test_any_header_is_read(headers: list[str]) -> None:
    for challenge in challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
