"""Which credentials are tried for an image: the cases of the kubelet's documentation, and what
is in a Secret that is not as it should be."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_discovery.image import parse_image
from aim_discovery.keyring import Credentials, entries_of, matching, unusable_entries


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def secret(document: Any, type_: str = "kubernetes.io/dockerconfigjson") -> dict[str, Any]:
    return {"type": type_, "data": {".dockerconfigjson": encoded(json.dumps(document))}}


def old_secret(document: Any) -> dict[str, Any]:
    """Of the type that OpenShift makes: entries without `auths`."""
    return {
        "type": "kubernetes.io/dockercfg",
        "data": {".dockercfg": encoded(json.dumps(document))},
    }


def of(*keys: str) -> list[tuple[str, Credentials]]:
    return [(key, Credentials(key, "p")) for key in keys]


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("ghcr.io", "ghcr.io/a/b", True),
        ("GHCR.io", "ghcr.io/a", True),
        ("https://ghcr.io", "ghcr.io/a", True),
        ("https://ghcr.io/v2/", "ghcr.io/a", True),
        ("ghcr.io/v1", "ghcr.io/a", True),
        ("ghcr.io/org", "ghcr.io/org/b", True),
        ("ghcr.io/other", "ghcr.io/org/b", False),
        ("ghcr.io/v2/org", "ghcr.io/org/b", True),
        ("ghcr.io", "quay.io/a", False),
        ("registry.example", "registry.example:5000/a", False),
        ("registry.example:5000", "registry.example:5000/a", True),
        ("*.example", "registry.example/a", True),
        ("*.example", "a.registry.example/a", False),
        ("*.example", "example/a", False),
        ("reg*.example", "registry.example/a", True),
        ("*.*.example", "a.registry.example/a", True),
        ("https://index.docker.io/v1/", "busybox", True),
        ("index.docker.io", "docker.io/rocm/vllm", True),
        ("docker.io", "rocm/vllm", True),
        ("https://index.docker.io/v1/", "ghcr.io/a", False),
        ("[::1]:5000", "[::1]:5000/a", True),
        ("https://[", "ghcr.io/a", False),
        ("", "ghcr.io/a", False),
    ],
)
def test_an_entry_is_for_an_image(key: str, image: str, *, fits: bool) -> None:
    assert bool(matching(of(key), parse_image(image))) is fits


def test_the_more_special_comes_first_and_each_once() -> None:
    entries = [*of("*.example", "r.example", "r.example/org"), *of("r.example")]
    found = matching(entries, parse_image("r.example/org/b"))
    assert [credentials.username for credentials in found] == [
        "r.example/org",
        "r.example",
        "*.example",
    ]


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        pytest.param(
            {"auth": encoded("ada:count:ess")}, Credentials("ada", "count:ess"), id="auth"
        ),
        pytest.param(
            {"username": "ada", "password": "countess"},
            Credentials("ada", "countess"),
            id="username-and-password",
        ),
        pytest.param(
            {"auth": encoded("ada:x"), "username": "bob", "password": "y"},
            Credentials("ada", "x"),
            id="auth-counts",
        ),
        pytest.param(
            {"auth": "", "username": "bob", "password": "y"},
            Credentials("bob", "y"),
            id="empty-auth",
        ),
        pytest.param({"auth": "***"}, None, id="not-base64"),
        pytest.param({"auth": encoded("ada")}, None, id="no-colon"),
        pytest.param({"auth": encoded(b"\xff:x")}, None, id="not-utf-8"),
        pytest.param({"username": "ada"}, None, id="no-password"),
        pytest.param(
            {"auth": encoded("ada:countess").rstrip("=")},
            Credentials("ada", "countess"),
            id="auth-without-padding",
        ),
        pytest.param(
            {"auth": f"{encoded('ada:count')}\n"},
            Credentials("ada", "count"),
            id="auth-with-a-line-break",
        ),
        pytest.param({"auth": encoded("ada:")}, Credentials("ada", ""), id="empty-password"),
        pytest.param(
            {"username": "ada", "password": "x", "email": "a@b", "more": 1},
            Credentials("ada", "x"),
            id="other-fields",
        ),
        pytest.param(
            {"auth": None, "username": "ada", "password": "x"},
            Credentials("ada", "x"),
            id="null-auth",
        ),
        pytest.param({"identitytoken": "t"}, Credentials("", "", "t"), id="identity-token"),
        pytest.param(
            {"auth": encoded("0000:"), "identitytoken": "t"},
            Credentials("0000", "", "t"),
            id="identity-token-and-auth",
        ),
        pytest.param(
            {"auth": "***", "identitytoken": "t"},
            Credentials("", "", "t"),
            id="identity-token-and-broken-auth",
        ),
        pytest.param({}, None, id="empty-as-with-a-credentials-store"),
    ],
)
@pytest.mark.parametrize("old", [False, True], ids=["dockerconfigjson", "dockercfg"])
def test_an_entry_of_a_secret(
    entry: dict[str, Any], found: Credentials | None, *, old: bool
) -> None:
    auths = {"r.example": entry}
    existing = old_secret(auths) if old else secret({"auths": auths})
    assert entries_of(existing) == ([] if found is None else [("r.example", found)])
    assert bool(unusable_entries(existing)) is (found is None)


@pytest.mark.parametrize("old", [False, True], ids=["dockerconfigjson", "dockercfg"])
def test_an_unusable_entry_is_counted_but_not_quoted(*, old: bool) -> None:
    auths = {
        "a.example": {"auth": encoded("ada:x")},
        "hidden-key": "hidden-word",
        "b.example": {"username": "bob", "password": "y"},
        "c": {"auth": "?"},
    }
    existing = old_secret(auths) if old else secret({"auths": auths})
    assert entries_of(existing) == [
        ("a.example", Credentials("ada", "x")),
        ("b.example", Credentials("bob", "y")),
    ]
    reported = unusable_entries(existing)
    assert reported.startswith("has 2 entries in .docker")
    assert "hidden" not in reported


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        pytest.param({"type": "Opaque", "data": {}}, "is not of type", id="type"),
        pytest.param(
            {"type": "kubernetes.io/dockerconfigjson"}, "has no docker configuration", id="no-data"
        ),
        pytest.param(
            {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "?"}},
            "has no docker configuration",
            id="not-base64",
        ),
        pytest.param(secret(["hidden-word"]), "has no docker configuration", id="a-list"),
        pytest.param(
            secret({"auths": ["hidden-word"]}), "has no docker configuration", id="auths-a-list"
        ),
        pytest.param(
            secret({"auths": {"r": "hidden-word"}}),
            "has no docker configuration",
            id="entry-a-text",
        ),
        pytest.param(
            secret({"auths": {"r": {"auth": 7}}}), "has no docker configuration", id="auth-a-number"
        ),
        pytest.param(
            secret({"r": {"auth": "hidden-word"}}),
            r"has no docker configuration in \.dockerconfigjson",
            id="no-auths",
        ),
        pytest.param(
            {"type": "kubernetes.io/dockercfg"},
            r"has no docker configuration in \.dockercfg",
            id="old-no-data",
        ),
        pytest.param(
            {"type": "kubernetes.io/dockercfg", "data": secret({})["data"]},
            r"has no docker configuration in \.dockercfg",
            id="old-by-the-other-key",
        ),
        pytest.param(old_secret(["hidden-word"]), "has no docker configuration", id="old-a-list"),
        pytest.param(
            old_secret({"r": "hidden-word"}), "has no docker configuration", id="old-entry-a-text"
        ),
        pytest.param({"type": None}, "is not of type", id="null-type"),
    ],
)
def test_a_broken_secret_is_reported_without_its_content(broken: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as raised:
        entries_of(broken)
    assert "hidden-word" not in str(raised.value)
    assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_credentials_are_never_shown() -> None:
    assert "countess" not in repr(Credentials("ada", "countess"))
    assert Credentials("ada", "countess").basic == "Basic " + encoded("ada:countess")


@given(st.text(max_size=30))
def test_any_key_is_for_some_images_or_for_none(key: str) -> None:
    assert len(matching(of(key), parse_image("ghcr.io/a"))) <= 1
