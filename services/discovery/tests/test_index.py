"""An image index, as different tools write it: its manifest for linux/amd64 is found, and what
exists is never called missing."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as holds_for
from hypothesis import strategies as st

from aim_discovery.image import Image, parse_image
from aim_discovery.platforms import read_index
from aim_discovery.registry import MOST_EXAMINED, Registries, RegistryProblem
from aimlab.sources.registry import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Failure,
    Registry,
)

Body = dict[str, Any]
REPOSITORY = "aim/tiny"
LABELS = {"com.amd.aim.title": "Tiny"}
AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}
WINDOWS = {"os": "windows", "architecture": "amd64"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}
ATTESTATION = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"


@pytest.fixture
async def registries() -> AsyncIterator[Registries]:
    async with Registries() as open_:
        yield open_


@pytest.fixture
async def served() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        yield registry


def encoded(document: Body) -> bytes:
    return json.dumps(document).encode()


class Pusher:
    """Puts manifests and indexes into a registry; each method returns the entry for an index."""

    def __init__(self, registry: Registry, *, docker: bool = False) -> None:
        self.registry = registry
        self.types = (
            (DOCKER_INDEX, DOCKER_MANIFEST, DOCKER_CONFIG) if docker else (INDEX, MANIFEST, CONFIG)
        )

    def image(
        self,
        is_: Body | None = None,
        platform: Body | None = None,
        *,
        title: str = "Tiny",
        **entry: Any,
    ) -> Body:
        """A manifest whose config is for `is_` (linux/amd64), in an entry with this `platform`
        (without one)."""
        config = encoded(
            {**(AMD64 if is_ is None else is_), "config": {"Labels": {"com.amd.aim.title": title}}}
        )
        described = {
            "mediaType": self.types[2],
            "digest": self.registry.put(REPOSITORY, self.types[2], config),
            "size": len(config),
        }
        manifest = encoded(
            {"schemaVersion": 2, "mediaType": self.types[1], "config": described, "layers": []}
        )
        digest = self.registry.put(REPOSITORY, self.types[1], manifest)
        return self.entry(digest, platform, **entry)

    def artifact(self, **entry: Any) -> Body:
        digest = self.registry.put(REPOSITORY, EMPTY_CONFIG, b"{}")
        manifest = encoded(
            {
                "schemaVersion": 2,
                "config": {"mediaType": EMPTY_CONFIG, "digest": digest, "size": 2},
                "layers": [],
            }
        )
        return self.entry(self.registry.put(REPOSITORY, self.types[1], manifest), **entry)

    def missing_image(self, platform: Body | None = None, digit: str = "0") -> Body:
        return self.entry("sha256:" + digit * 64, platform)

    def entry(self, digest: str, platform: Body | None = None, **more: Any) -> Body:
        found = {
            "mediaType": self.types[1],
            "digest": digest,
            "size": 1,
            **({} if platform is None else {"platform": platform}),
            **more,
        }
        return {name: value for name, value in found.items() if value is not None}

    def index(
        self, *entries: Any, platform: Body | None = None, tag: str = "1", **document: Any
    ) -> Body:
        body = {
            "schemaVersion": 2,
            "mediaType": self.types[0],
            "manifests": list(entries),
        } | document
        digest = self.registry.put(
            REPOSITORY,
            self.types[0],
            encoded({name: value for name, value in body.items() if value is not None}),
            tag,
        )
        return self.entry(digest, platform, mediaType=self.types[0])


def image(served: Registry) -> Image:
    return replace(parse_image(f"{served.host}/{REPOSITORY}"), reference="1")


FOUND = [
    pytest.param(lambda p: p.index(p.image()), id="one-without-a-platform"),
    pytest.param(lambda p: p.index(p.image(platform={})), id="empty-platform"),
    pytest.param(lambda p: p.index(p.image(platform={"os": "linux"})), id="no-architecture"),
    pytest.param(lambda p: p.index(p.image(platform={"architecture": "amd64"})), id="no-os"),
    pytest.param(
        lambda p: p.index(p.image(platform={"os": "", "architecture": ""})),
        id="empty-os-and-architecture",
    ),
    pytest.param(
        lambda p: p.index(p.image(platform={"os": None, "architecture": 7})),
        id="odd-os-and-architecture",
    ),
    pytest.param(
        lambda p: p.index(p.image(platform=UNKNOWN)), id="an-image-for-an-unknown-platform"
    ),
    pytest.param(lambda p: p.index(p.image() | {"platform": None}), id="null-platform"),
    pytest.param(lambda p: p.index(p.image() | {"platform": "linux/amd64"}), id="platform-as-text"),
    pytest.param(lambda p: p.index(p.image(platform=AMD64)), id="with-a-platform"),
    pytest.param(
        lambda p: p.index(p.image(platform=AMD64 | {"variant": "v1"})), id="with-a-variant"
    ),
    pytest.param(
        lambda p: p.index(p.image(platform={"os": "linux", "architecture": "x86_64"})),
        id="by-another-name",
    ),
    pytest.param(
        lambda p: p.index(p.image(ARM64, title="Arm"), p.image()), id="second-of-two-without"
    ),
    pytest.param(
        lambda p: p.index(p.image(ARM64, ARM64, title="Arm"), p.image()), id="only-ours-without"
    ),
    pytest.param(
        lambda p: p.index(p.image(ARM64, title="Arm"), p.image(platform=AMD64)),
        id="only-the-others-without",
    ),
    pytest.param(
        lambda p: p.index(p.image(WINDOWS, WINDOWS, title="Windows"), p.image(platform=AMD64)),
        id="beside-windows",
    ),
    pytest.param(
        lambda p: p.index(
            p.image(platform=AMD64 | {"variant": "v3"}, title="New"), p.image(platform=AMD64)
        ),
        id="plain-before-a-variant",
    ),
    pytest.param(
        lambda p: p.index(p.artifact(platform=UNKNOWN, **ATTESTATION), p.image()),
        id="beside-an-attestation",
    ),
    pytest.param(
        lambda p: p.index(p.image(UNKNOWN, UNKNOWN, title="Attestation"), p.image()),
        id="beside-an-unmarked-attestation",
    ),
    pytest.param(
        lambda p: p.index(p.artifact(artifactType="application/spdx+json"), p.image()),
        id="beside-an-artifact",
    ),
    pytest.param(lambda p: p.index(p.artifact(), p.image()), id="beside-an-unmarked-artifact"),
    pytest.param(
        lambda p: p.index(p.artifact(mediaType="application/x-signature"), p.image()),
        id="beside-another-type",
    ),
    pytest.param(
        lambda p: p.index(p.missing_image(), p.image()), id="beside-one-that-was-not-copied"
    ),
    pytest.param(lambda p: p.index(p.image(mediaType=None)), id="entry-without-a-type"),
    pytest.param(lambda p: p.index(p.image(), mediaType=None), id="index-without-a-type"),
    pytest.param(
        lambda p: p.index(None, "x", {}, {"digest": "sha256:short"}, p.image()),
        id="beside-nonsense",
    ),
    pytest.param(lambda p: p.index(p.image({})), id="config-names-no-platform-either"),
    pytest.param(lambda p: p.index(p.image({"architecture": "amd64"})), id="config-names-no-os"),
    pytest.param(
        lambda p: p.index(p.index(p.image(platform=AMD64), tag="")), id="nested-without-a-platform"
    ),
    pytest.param(lambda p: p.index(p.index(p.image(), tag="")), id="nested-both-without"),
    pytest.param(
        lambda p: p.index(p.index(p.image(), tag="", platform=AMD64)), id="nested-with-a-platform"
    ),
    pytest.param(
        lambda p: p.index(
            p.index(p.image(ARM64, ARM64, title="Arm"), tag=""), p.index(p.image(), tag="")
        ),
        id="second-nested",
    ),
]


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize("push", FOUND)
async def test_the_image_for_linux_amd64_is_found(
    registries: Registries, served: Registry, push: Any, docker: bool
) -> None:
    index = push(Pusher(served, docker=docker))
    found = await registries.config_of(image(served), [])
    assert (found.labels, found.digest) == (LABELS, index["digest"])


async def problem(registries: Registries, of: Image) -> tuple[str, str]:
    with pytest.raises(RegistryProblem) as raised:
        await registries.config_of(of, [])
    return raised.value.reason, str(raised.value)


@pytest.mark.parametrize(
    ("push", "text"),
    [
        pytest.param(
            lambda p: p.index(p.image(ARM64, ARM64)),
            "exists, but only for linux/arm64, not for linux/amd64",
            id="arm64",
        ),
        pytest.param(
            lambda p: p.index(p.image(ARM64)),
            "exists, but only for linux/arm64, not for linux/amd64",
            id="arm64-by-its-config",
        ),
        pytest.param(
            lambda p: p.index(p.image(WINDOWS)),
            "only for windows/amd64",
            id="windows-by-its-config",
        ),
        pytest.param(
            lambda p: p.index(p.image(ARM64, ARM64), p.image(WINDOWS)),
            "only for linux/arm64, windows/amd64",
            id="two-ways",
        ),
        pytest.param(
            lambda p: p.index(p.image(ARM64, {"architecture": "arm64"})),
            "only for unknown/arm64",
            id="another-architecture-without-os",
        ),
        pytest.param(
            lambda p: p.index(p.missing_image(), p.image(ARM64)),
            "only for linux/arm64",
            id="beside-one-that-was-not-copied",
        ),
        pytest.param(
            lambda p: p.index(p.artifact(platform=UNKNOWN, **ATTESTATION)),
            "an index without a container image",
            id="attestation-alone",
        ),
        pytest.param(
            lambda p: p.index(p.artifact(artifactType="application/spdx+json")),
            "an index without a container image",
            id="artifact-alone",
        ),
        pytest.param(
            lambda p: p.index(p.artifact()),
            "is not a container image with a config",
            id="unmarked-artifact-alone",
        ),
        pytest.param(
            lambda p: p.index(p.index(p.index(p.image(), tag=""), tag="")),
            "index of indexes of indexes",
            id="too-deep",
        ),
    ],
)
async def test_an_image_for_other_platforms_is_not_called_missing(
    registries: Registries, served: Registry, push: Any, text: str
) -> None:
    push(Pusher(served))
    reason, message = await problem(registries, image(served))
    assert (reason, text in message) == ("MetadataMissing", True), message


async def test_a_registry_error_is_reported_before_the_platforms(
    registries: Registries, served: Registry
) -> None:
    pusher = Pusher(served)
    pusher.index(pusher.image(ARM64))
    served.failure = Failure(503)
    assert (await problem(registries, image(served)))[0] == "RegistryUnreachable"


async def test_an_index_of_which_nothing_was_copied_is_missing(
    registries: Registries, served: Registry
) -> None:
    pusher = Pusher(served)
    pusher.index(pusher.missing_image())
    assert (await problem(registries, image(served)))[0] == "ImageNotFound"


async def test_only_some_manifests_of_a_long_index_are_read(
    registries: Registries, served: Registry
) -> None:
    pusher = Pusher(served)
    pusher.index(*(pusher.missing_image(digit=digit) for digit in "0123456789abcdef"))
    await problem(registries, image(served))
    assert len(served.requests) == 1 + MOST_EXAMINED


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "linux", "amd64", 0, True, [], {}, {"a": 1}]
)
DIGESTS = st.sampled_from(["sha256:" + "a" * 64, "sha256:x", "", None, 7])
PLATFORMS = st.one_of(
    ODD, st.fixed_dictionaries({}, optional={"os": ODD, "architecture": ODD, "variant": ODD})
)
ENTRY = st.fixed_dictionaries(
    {"digest": DIGESTS},
    optional={"platform": PLATFORMS, "mediaType": ODD, "artifactType": ODD, "annotations": ODD},
)


@holds_for(st.lists(st.one_of(ODD, ENTRY), max_size=5))
def test_malformed_entries_raise_nothing_and_name_no_digest(
    manifests: list[Any],
) -> None:
    found = read_index(manifests)
    assert {*found.ours, *found.undetermined} <= {"sha256:" + "a" * 64}
