"""Subjects: every object has a unique one, which parses back to the object."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimschema import subjects
from aimschema.resources import RESOURCES, Key

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
SUBDOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
KEYS = st.builds(Key, st.sampled_from(sorted(RESOURCES)), st.none() | LABEL, SUBDOMAIN)
SERVICES = st.sampled_from(["discovery", "cacher", "deployer", "router"])

BUILDERS: list[tuple[str, str, Callable[[Key, str], str]]] = [
    ("object", subjects.OBJECT, lambda key, _service: subjects.of_object(key)),
    ("report", subjects.REPORT, subjects.of_report),
    ("action", subjects.ACTION, lambda key, service: subjects.of_action(service, key)),
    ("dead", subjects.DEAD, lambda key, service: subjects.of_dead(service, key)),
    ("progress", subjects.LIVE_PROGRESS, lambda key, _service: subjects.of_progress(key)),
]
EVERY_BUILDER = pytest.mark.parametrize(
    ("family", "build"), [pytest.param(family, build, id=name) for name, family, build in BUILDERS]
)
WITH_SERVICE = {subjects.REPORT, subjects.ACTION, subjects.DEAD}


@EVERY_BUILDER
@given(key=KEYS, service=SERVICES)
def test_what_a_subject_was_built_from_comes_back(
    family: str, build: Callable[[Key, str], str], key: Key, service: str
) -> None:
    address = subjects.parse(build(key, service))
    assert address == (family, key.kind, key, service if family in WITH_SERVICE else None)


@given(one=KEYS, other=KEYS, service=SERVICES)
def test_two_objects_never_share_a_subject(one: Key, other: Key, service: str) -> None:
    for _, _, build in BUILDERS:
        assert (build(one, service) == build(other, service)) == (one == other)


@given(key=KEYS)
def test_a_dot_in_a_name_makes_no_token(key: Key) -> None:
    assert len(subjects.of_object(key).split(".")) == 5
    assert len(subjects.of_progress(key).split(".")) == 5


def test_sync_markers_name_a_kind_and_no_object() -> None:
    assert subjects.parse(subjects.of_synced("Pod")) == (subjects.SYNCED, "Pod", None, None)


@pytest.mark.parametrize(
    ("pattern", "takes", "leaves"),
    [
        pytest.param(
            subjects.objects("Pod"),
            subjects.of_object(Key("Pod", "ml", "a.b")),
            subjects.of_object(Key("PodX", "ml", "a")),
            id="objects-of-a-kind",
        ),
        pytest.param(
            subjects.reports(service="cacher"),
            subjects.of_report(Key("ModelCache", "ml", "a.b"), "cacher"),
            subjects.of_report(Key("ModelCache", "ml", "a.b"), "deployer"),
            id="reports-of-a-service",
        ),
        pytest.param(
            subjects.reports("ModelCache"),
            subjects.of_report(Key("ModelCache", "ml", "c"), "deployer"),
            subjects.of_report(Key("AIMService", "ml", "c"), "deployer"),
            id="reports-on-a-kind",
        ),
        pytest.param(
            subjects.ALL,
            subjects.of_synced("Pod"),
            subjects.of_progress(Key("ModelCache", "ml", "c")),
            id="all-that-is-stored",
        ),
    ],
)
def test_filters(pattern: str, takes: str, leaves: str) -> None:
    assert _matches(pattern, takes)
    assert not _matches(pattern, leaves)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "aim",
        "aim.object.Pod",
        "aim.object.Pod.ml.a.b",
        "aim.report.Pod.ml.a",
        "aim.nothing.Pod.ml.a",
        "aimlive.progress.Pod.ml",
    ],
)
def test_other_subjects_are_rejected(subject: str) -> None:
    with pytest.raises(ValueError, match="not a subject of this project"):
        subjects.parse(subject)


def _matches(pattern: str, subject: str) -> bool:
    """As NATS matches: `*` is one token, `>` one or more at the end."""
    expected, tokens = pattern.split("."), subject.split(".")
    if expected[-1] == ">":
        return len(tokens) >= len(expected) and all(
            w in {"*", t} for w, t in zip(expected[:-1], tokens, strict=False)
        )
    return len(tokens) == len(expected) and all(
        w in {"*", t} for w, t in zip(expected, tokens, strict=True)
    )


@given(key=KEYS, service=SERVICES)
def test_a_dead_letter_names_the_subject_of_its_message(key: Key, service: str) -> None:
    for original in (
        subjects.of_object(key),
        subjects.of_report(key, "cacher"),
        subjects.of_action("cacher", key),
    ):
        assert subjects.parse(subjects.of_unreadable(service, original)) == (
            subjects.DEAD,
            key.kind,
            key,
            service,
        )
    assert subjects.parse(subjects.of_unreadable(service, subjects.of_synced(key.kind))) == (
        subjects.DEAD,
        key.kind,
        None,
        service,
    )


@given(key=KEYS, service=SERVICES)
def test_no_subject_is_longer_than_the_server_takes(key: Key, service: str) -> None:
    for _, _, build in BUILDERS:
        assert len(build(key, service)) <= subjects.LONGEST
    longest = Key("K" * 63, "n" * 63, "x" * 253)
    assert (
        len(subjects.of_unreadable("statuswriter", subjects.of_report(longest, "statuswriter")))
        <= subjects.LONGEST
    )


LONG = "x" * 4000


@pytest.mark.parametrize(
    "original",
    [
        f"aim.object.Pod.ml.{LONG}",
        f"aim.object.{LONG}.ml.a",
        f"aim.report.Pod.ml.a.{LONG}",
        f"aim.synced.{LONG}",
        "aim.object.Pod.ml.é",
    ],
)
def test_a_subject_of_no_object_is_hashed_in_its_dead_letter(original: str) -> None:
    subject = subjects.of_unreadable("router", original)
    assert len(subject) <= subjects.LONGEST
    assert subjects.parse(subject) == (subjects.DEAD, "", None, "router")


@pytest.mark.parametrize(
    "original",
    [
        "aim.object.Pod.too.many.tokens",
        "aim.x",
        "aim.dead.router.Pod.ml.a",
        "aim.object.Pod.\u00e9",
    ],
)
def test_a_malformed_subject_is_hashed_in_its_dead_letter(original: str) -> None:
    subject = subjects.of_unreadable("router", original)
    assert subject.startswith("aim.dead.router.unreadable.")
    assert len(subject.split(".")) == 5
    assert subjects.parse(subject) == (subjects.DEAD, "", None, "router")
    assert subject != subjects.of_unreadable("router", original + "x")
    assert subjects.try_parse(original) is None or original.startswith(subjects.DEAD)
