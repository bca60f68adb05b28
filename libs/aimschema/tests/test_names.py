"""Names of what is made: valid for Kubernetes at every length, the same at every call, different
for different things."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema import names
from aimschema.kinds import CACHE_NAME_LENGTH, SERVICE_NAME_LENGTH

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)
SUBDOMAINS = (
    st.lists(LABEL, min_size=1, max_size=8).map(".".join).map(lambda name: name[:253].rstrip("-."))
)
SOURCES = st.builds(
    "{}://{}".format,
    st.sampled_from(["hf", "s3"]),
    st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=300).filter(
        lambda path: path[0] != "/"
    ),
)


@given(template=SUBDOMAINS)
def test_a_discovery_job_fits_in_the_label_its_pods_carry(template: str) -> None:
    name = names.discovery_job(template, names.short_hash(["image", "latency"]))
    assert len(name) <= 63
    assert SUBDOMAIN.fullmatch(name)


@given(model=SUBDOMAINS, other=SUBDOMAINS)
def test_what_is_kept_of_an_image_has_a_name_of_its_own(model: str, other: str) -> None:
    assert SUBDOMAIN.fullmatch(names.image_config_map(model))
    assert (names.image_config_map(model) == names.image_config_map(other)) is (model == other)


@pytest.mark.parametrize("cut", ["a" * 44 + "-" + "b" * 20, "a" * 44 + ".b", "a" * 43 + ".-b"])
def test_a_truncated_template_name_ends_alphanumerically(cut: str) -> None:
    assert re.fullmatch(r"discover-a+-12345678", names.discovery_job(cut, "12345678"))


@given(source=SOURCES)
def test_a_cache_made_for_a_source_may_be_called_so(source: str) -> None:
    name = names.cache_for(source)
    assert len(name) <= CACHE_NAME_LENGTH
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert name == names.cache_for(source)


@given(one=SOURCES, other=SOURCES)
def test_two_sources_have_two_caches(one: str, other: str) -> None:
    assert (names.cache_for(one) == names.cache_for(other)) == (one == other)


@pytest.mark.parametrize(
    ("source", "readable"),
    [
        pytest.param("hf://org/Model-8B", "org-model-8b", id="as-promised"),
        pytest.param("hf://org/Model-8B@main", "org-model-8b", id="revision-only-in-the-hash"),
        pytest.param("s3://bucket/a/b/", "bucket-a-b", id="slash-at-the-end"),
        pytest.param("hf://___", "model", id="nothing-readable"),
        pytest.param("s3://b/" + "x" * 60, "x" * 45, id="long"),
    ],
)
def test_the_readable_part_of_a_cache_name(source: str, readable: str) -> None:
    assert re.fullmatch(re.escape(readable) + "-[0-9a-f]{8}", names.cache_for(source))


@pytest.mark.parametrize(
    "name_of", [names.cache_claim, names.cache_download_job, names.cache_size_job]
)
def test_what_is_made_for_the_longest_cache_name_fits(name_of: type[str]) -> None:
    assert len(name_of("c" * CACHE_NAME_LENGTH)) <= 63


def test_the_names_of_what_belongs_to_a_cache_differ() -> None:
    assert (
        len({names.cache_claim("c"), names.cache_download_job("c"), names.cache_size_job("c")}) == 3
    )


def test_the_predictor_of_the_longest_service_name_fits() -> None:
    assert names.predictor_service("s") == "s-predictor"
    assert len(names.predictor_service("s" * SERVICE_NAME_LENGTH)) <= 63


@given(
    st.lists(st.text(st.characters(exclude_characters="\0"), max_size=4), max_size=4),
    st.lists(st.text(max_size=4), max_size=4),
)
def test_the_hash_distinguishes_lists_not_texts(one: list[str], other: list[str]) -> None:
    assert re.fullmatch(r"[0-9a-f]{8}", names.short_hash(one))
    if "\0".join(one) != "\0".join(other):
        assert names.short_hash(one) != names.short_hash(other)
    assert names.short_hash(["a", "bc"]) != names.short_hash(["ab", "c"])


@pytest.mark.parametrize(
    ("source", "place"),
    [
        pytest.param("hf://org/model", ("org", "model"), id="owner-and-name"),
        pytest.param("hf://org/model@main", ("org", "model"), id="branch"),
        pytest.param("hf://org/model@refs/pr/1", ("org", "model"), id="revision-with-slashes"),
        pytest.param("s3://bucket/org/model", ("org", "model"), id="last-two-of-a-prefix"),
        pytest.param("s3://bucket/model/", ("bucket", "model"), id="slash-at-the-end"),
        pytest.param("s3://bucket//org//model", ("org", "model"), id="empty-segments"),
        pytest.param(
            "s3://bucket/org/Model_1.5-8B", ("org", "Model_1.5-8B"), id="all-allowed-characters"
        ),
        pytest.param("hf://model", None, id="one-segment"),
        pytest.param("s3://bucket/", None, id="bucket-only"),
        pytest.param("hf://org/..", None, id="parent-folder"),
        pytest.param("hf://../model", None, id="parent-folder-first"),
        pytest.param("hf://./model", None, id="this-folder"),
        pytest.param("s3://bucket/org/mo del", None, id="space"),
        pytest.param("s3://bucket/org/model@v1", None, id="at-sign-in-a-key"),
        pytest.param("s3://bucket/org@x/model", None, id="at-sign-before-the-last"),
        pytest.param("hf://org/mødel", None, id="not-ascii"),
        pytest.param("hf://org/model\n", None, id="line-feed"),
        pytest.param("", None, id="empty"),
    ],
)
def test_where_a_source_is_mounted(source: str, place: tuple[str, str] | None) -> None:
    assert names.mount_path_of(source) == place


@given(source=SOURCES)
def test_a_mount_never_leaves_its_folder(source: str) -> None:
    place = names.mount_path_of(source)
    assert place is None or all(
        re.fullmatch(r"[A-Za-z0-9._-]+", part) and part not in {".", ".."} for part in place
    )


@pytest.mark.parametrize("length", [1, 243, 244, 253])
def test_a_long_template_name_gets_a_config_map_name_that_fits(length: int) -> None:
    name = names.discovery_config_map("t" * length)
    assert SUBDOMAIN.fullmatch(name)
    assert len(name) <= 253
    assert name.endswith("-discovery")
    assert (name == "t" * length + "-discovery") is (length <= 243), (
        "it is cut only where it must be"
    )


def test_templates_that_are_cut_alike_have_own_config_maps() -> None:
    first, second = "t" * 250 + ".a", "t" * 250 + ".b"
    assert names.discovery_config_map(first) != names.discovery_config_map(second)
    assert ".-" not in names.discovery_config_map("t" * 233 + "." + "x" * 19), (
        "no label may end in a dash or begin with one"
    )
