"""References by docker's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_discovery.image import Image, is_loopback, parse_image

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "image", "url"),
    [
        (
            "busybox",
            Image("docker.io", "library/busybox", "latest"),
            "https://registry-1.docker.io",
        ),
        ("rocm/vllm:6.4", Image("docker.io", "rocm/vllm", "6.4"), "https://registry-1.docker.io"),
        (
            "index.docker.io/rocm/vllm",
            Image("docker.io", "rocm/vllm", "latest"),
            "https://registry-1.docker.io",
        ),
        (
            "docker.io/busybox:1",
            Image("docker.io", "library/busybox", "1"),
            "https://registry-1.docker.io",
        ),
        ("ghcr.io/a/b/c", Image("ghcr.io", "a/b/c", "latest"), "https://ghcr.io"),
        ("ghcr.io/busybox", Image("ghcr.io", "busybox", "latest"), "https://ghcr.io"),
        (
            "registry.example:5000/a:b",
            Image("registry.example:5000", "a", "b"),
            "https://registry.example:5000",
        ),
        ("HOST/a", Image("HOST", "a", "latest"), "https://HOST"),
        ("localhost/a", Image("localhost", "a", "latest"), "http://localhost"),
        ("localhost:5000/a", Image("localhost:5000", "a", "latest"), "http://localhost:5000"),
        ("127.0.0.1:5000/a", Image("127.0.0.1:5000", "a", "latest"), "http://127.0.0.1:5000"),
        ("[::1]:5000/a", Image("[::1]:5000", "a", "latest"), "http://[::1]:5000"),
        ("10.0.0.1/a", Image("10.0.0.1", "a", "latest"), "https://10.0.0.1"),
        (
            "localhost.example/a",
            Image("localhost.example", "a", "latest"),
            "https://localhost.example",
        ),
        (f"ghcr.io/a@{DIGEST}", Image("ghcr.io", "a", DIGEST), "https://ghcr.io"),
        (f"ghcr.io/a:tag@{DIGEST}", Image("ghcr.io", "a", DIGEST), "https://ghcr.io"),
    ],
    ids=str,
)
def test_a_reference(text: str, image: Image, url: str) -> None:
    found = parse_image(text)
    assert (found, f"{found.scheme}://{found.host}") == (image, url)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is not a repository"),
        ("Busybox", "is not a repository"),
        ("ghcr.io/", "is not a repository"),
        ("ghcr.io//a", "is not a repository"),
        ("ghcr.io/a/../b", "is not a repository"),
        ("ghcr.io/a?x=1", "is not a repository"),
        ("https://ghcr.io/a", "is not a registry"),
        ("user@ghcr.io/a", "is not a digest"),
        ("ghcr.io:99999/a", "is not a registry"),
        ("-x.io/a", "is not a registry"),
        ("a:", "is not a tag"),
        ("a:.b", "is not a tag"),
        ("a:b:c", "is not a tag"),
        ("a@", "no digest after @"),
        ("a@sha256:short", "is not a digest"),
        ("a\n", "is not a repository"),
        (f"ghcr.io/{'a' * 250}", "longer than 255"),
    ],
)
def test_a_malformed_reference_is_rejected_with_its_wrong_part(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_image(text)


@given(st.text(alphabet="aB0._-/:@[]? \n\u00e9", max_size=40))
def test_any_text_is_read_back_unchanged_or_rejected(text: str) -> None:
    try:
        image = parse_image(text)
    except ValueError:
        return
    assert parse_image(str(image)) == image
    assert not set(f"{image.host}{image.repository}{image.reference}") & set("? \n@\u00e9")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.9.9.9:1", True),
        ("[::1]", True),
        ("LOCALHOST", True),
        ("128.0.0.1", False),
        ("x", False),
    ],
)
def test_loopback(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback
