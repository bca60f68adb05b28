"""Reading configs over real HTTP, from the lab's registry."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from aim_discovery.image import Image, parse_image
from aim_discovery.keyring import Credentials
from aim_discovery.registry import Registries, RegistryProblem
from aimlab.sources.registry import CONFIG, MANIFEST, Failure, Registry, Request

USERS = {"ada": "countess"}
ADA = Credentials("ada", "countess")
WRONG = Credentials("ada", "guessed")
LABELS = {"com.amd.aim.title": "Tiny"}
REPOSITORY = "aim/tiny"


@pytest.fixture
async def registries() -> AsyncIterator[Registries]:
    async with Registries() as open_:
        yield open_


@pytest.fixture
async def public() -> AsyncIterator[Registry]:
    async with Registry() as served:
        served.put_image(REPOSITORY, "1", LABELS)
        yield served


@pytest.fixture(params=["bearer", "basic"])
async def private(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    async with Registry(USERS, auth=request.param) as served:
        served.put_image(REPOSITORY, "1", LABELS)
        yield served


def image(served: Registry, reference: str = "1") -> Image:
    return replace(parse_image(f"{served.host}/{REPOSITORY}"), reference=reference)


async def problem(registries: Registries, of: Image, *credentials: Credentials) -> tuple[str, str]:
    with pytest.raises(RegistryProblem) as raised:
        await registries.config_of(of, credentials)
    return raised.value.reason, str(raised.value)


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize(
    "platforms", [(), ("linux/arm64", "linux/amd64")], ids=["manifest", "index"]
)
async def test_labels_by_tag_and_by_digest(
    registries: Registries, public: Registry, docker: bool, platforms: tuple[str, ...]
) -> None:
    digest = public.put_image(REPOSITORY, "2", LABELS, platforms=platforms, docker=docker)
    by_tag = await registries.config_of(image(public, "2"), [])
    assert (by_tag.digest, by_tag.labels) == (digest, LABELS)
    assert await registries.config_of(image(public, digest), []) == by_tag


async def test_an_image_for_another_platform_only_does_not_count(
    registries: Registries, public: Registry
) -> None:
    public.put_image(REPOSITORY, "arm", LABELS, platforms=("linux/arm64", "linux/s390x"))
    reason, message = await problem(registries, image(public, "arm"))
    assert reason == "MetadataMissing", "an image that exists stops no template"
    assert "exists, but only for linux/arm64, linux/s390x, not for linux/amd64" in message


async def test_a_private_registry_lets_in_who_is_known(
    registries: Registries, private: Registry
) -> None:
    assert (await registries.config_of(image(private), [ADA])).labels == LABELS
    assert "" in {request.authorization for request in private.requests}, (
        "credentials are sent only to who asks for them"
    )


async def test_the_next_credentials_are_tried_after_a_rejection(
    registries: Registries, private: Registry
) -> None:
    assert (await registries.config_of(image(private), [WRONG, ADA])).labels == LABELS


@pytest.mark.parametrize("credentials", [[], [WRONG]], ids=["anonymous", "wrong-password"])
async def test_a_private_registry_rejects_others(
    registries: Registries, private: Registry, credentials: list[Credentials]
) -> None:
    reason, message = await problem(registries, image(private), *credentials)
    assert reason == "AuthError"
    assert "guessed" not in message


@pytest.mark.parametrize(
    ("failure", "reason", "text"),
    [
        pytest.param(Failure(401), "AuthError", "other than Bearer and Basic", id="401"),
        pytest.param(Failure(403), "AuthError", "answers 403: UNAVAILABLE as asked for", id="403"),
        pytest.param(Failure(404), "ImageNotFound", "is not in its registry", id="404"),
        pytest.param(
            Failure(429, headers={"Retry-After": "77"}),
            "RegistryUnreachable",
            "answers 429",
            id="429",
        ),
        pytest.param(Failure(503), "RegistryUnreachable", "answers 503", id="503"),
        pytest.param(
            Failure(302, headers={"Location": "http://example.com/"}),
            "RegistryUnreachable",
            "not https",
            id="redirect-to-http-elsewhere",
        ),
        pytest.param(
            Failure(302, headers={"Location": "file:///etc/passwd"}),
            "RegistryUnreachable",
            "not https",
            id="redirect-to-a-file",
        ),
        pytest.param(
            Failure(302, headers={"Location": "/v2/aim/tiny/manifests/1"}),
            "RegistryUnreachable",
            "more than 5 times",
            id="redirects-in-circles",
        ),
        pytest.param(
            Failure(401, headers={"WWW-Authenticate": 'Bearer realm="http://example.com/token"'}),
            "RegistryUnreachable",
            "not https",
            id="realm-by-http",
        ),
    ],
)
async def test_a_rejection_is_named(
    registries: Registries, public: Registry, failure: Failure, reason: str, text: str
) -> None:
    public.failure = failure
    with pytest.raises(RegistryProblem, match=text) as raised:
        await registries.config_of(image(public), [])
    assert raised.value.reason == reason
    assert raised.value.retry_after_s == (77 if failure.status == 429 else 0)


async def test_an_unknown_tag_is_not_found(registries: Registries, public: Registry) -> None:
    reason, message = await problem(registries, image(public, "nowhere"))
    assert (reason, "MANIFEST_UNKNOWN nowhere is unknown" in message) == ("ImageNotFound", True)


async def test_a_registry_that_is_down_cannot_be_reached(
    registries: Registries, public: Registry
) -> None:
    await public.stop()
    assert (await problem(registries, image(public)))[0] == "RegistryUnreachable"


async def test_a_slow_registry_is_not_waited_for(public: Registry) -> None:
    public.failure = Failure(delay_s=2)
    async with Registries(image_s=0.1) as hurried:
        assert await problem(hurried, image(public)) == (
            "RegistryUnreachable",
            f"{public.host} did not answer in time",
        )


async def test_no_identity_follows_a_redirect_to_another_origin(
    registries: Registries, private: Registry
) -> None:
    async with Registry() as storage:
        storage.put_image(REPOSITORY, "1", LABELS)
        private.blobs_at = storage.url
        assert (await registries.config_of(image(private), [ADA])).labels == LABELS
        assert [request.authorization for request in storage.requests] == [""]
    assert (
        Request(private.requests[-1].path, private.requests[-2].authorization)
        == private.requests[-1]
    )


BLOB = "sha256:" + "0" * 64


def manifest(media_type: str = CONFIG, digest: str = BLOB) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "config": {"mediaType": media_type, "digest": digest}}
    ).encode()


@pytest.mark.parametrize(
    ("content", "reason", "text"),
    [
        pytest.param(b"<html>", "RegistryUnreachable", "is not a JSON object", id="not-json"),
        pytest.param(
            b"[" * 100_000, "RegistryUnreachable", "is not a JSON object", id="nested-too-deep"
        ),
        pytest.param(
            b" " * ((4 << 20) + 1), "RegistryUnreachable", "more than 4096 KiB", id="too-large"
        ),
        pytest.param(b'{"manifests": []}', "ImageNotFound", "names no platform", id="empty-index"),
        pytest.param(
            b'{"manifests": [null, {"platform": 1}]}',
            "ImageNotFound",
            "names no platform",
            id="strange-index",
        ),
        pytest.param(b"{}", "MetadataMissing", "not a container image", id="no-config"),
        pytest.param(
            manifest("application/vnd.cncf.helm.config.v1+json"),
            "MetadataMissing",
            "helm",
            id="a-chart",
        ),
        pytest.param(
            manifest(digest="sha256:../../x"),
            "MetadataMissing",
            "not a container image",
            id="no-digest",
        ),
        pytest.param(
            manifest(), "ImageNotFound", "for blobs of aim/tiny answers 404", id="config-missing"
        ),
        pytest.param(
            manifest("application/vnd.oci.empty.v1+json"),
            "MetadataMissing",
            "oci.empty",
            id="an-artifact",
        ),
        pytest.param(
            b'{"mediaType": "application/vnd.oci.artifact.manifest.v1+json"}',
            "MetadataMissing",
            "artifact",
            id="an-artifact-without-config",
        ),
        pytest.param(
            b'{"schemaVersion": 1, "history": []}',
            "MetadataMissing",
            "docker's schema 1",
            id="docker-schema-1",
        ),
    ],
)
async def test_what_is_no_image_is_named(
    registries: Registries, public: Registry, content: bytes, reason: str, text: str
) -> None:
    public.put(REPOSITORY, MANIFEST, content, "odd")
    reported = await problem(registries, image(public, "odd"))
    assert (reported[0], text in reported[1]) == (reason, True), reported


async def test_content_that_differs_from_its_digest_is_rejected(
    registries: Registries, public: Registry
) -> None:
    async with Registry() as storage:
        honest = public.put_image(REPOSITORY, "1", LABELS)
        public.blobs_at = storage.url
        storage.put(
            REPOSITORY,
            CONFIG,
            b"{}",
            json.loads(public.content(REPOSITORY, honest))["config"]["digest"],
        )
        reason, message = await problem(registries, image(public))
    assert (reason, "is corrupt" in message) == ("RegistryUnreachable", True)
