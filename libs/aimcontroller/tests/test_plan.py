"""What planners return, and the words in it."""

import datetime
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimcontroller.action import DeleteObject
from aimcontroller.plan import (
    EMPTY_PLAN,
    MESSAGE_LENGTH,
    Plan,
    Report,
    actions,
    condition,
    report,
    requeue_after,
    sanitize,
    with_start_times,
)
from aimcontroller.projection import KubeObject
from aimcontroller.testing import NOW
from aimschema.messages import ReportedCondition, ReportedWarning, StatusReported, timestamp
from aimschema.resources import Key

POD = Key("Pod", "ml", "p")
OBJ = KubeObject(POD, "u", 1, {"metadata": {"generation": 3}})
DELETE = DeleteObject(POD, "u")


@pytest.mark.parametrize(
    ("one", "other", "after_s"),
    [(None, None, None), (5.0, None, 5.0), (None, 5.0, 5.0), (9.0, 5.0, 5.0), (0.0, 5.0, 0.0)],
)
def test_two_merged_plans_keep_the_earlier_requeue_time(
    one: float | None, other: float | None, after_s: float | None
) -> None:
    reported = report(OBJ, condition("A", True, "Ok"))
    both = actions(DELETE) | Plan(requeue_after_s=one) | reported | Plan(requeue_after_s=other)
    assert both == Plan((DELETE,), reported.reports, after_s)


def test_nothing_adds_nothing() -> None:
    assert actions(DELETE) | EMPTY_PLAN == actions(DELETE)


def test_a_requeue_is_never_in_the_past() -> None:
    assert requeue_after(-3.0).requeue_after_s == 0.0


def test_a_report_names_its_subject_and_omits_none() -> None:
    (reported,) = report(
        OBJ, condition("A", None, "Waiting"), progress="1%", revision=None, attempts=0
    ).reports
    assert reported.message("cacher") == StatusReported(
        kind="Pod",
        namespace="ml",
        name="p",
        uid="u",
        service="cacher",
        observed_generation=3,
        conditions=(ReportedCondition(type="A", status="Unknown", reason="Waiting", message=""),),
        fields={"progress": "1%", "attempts": 0},
    )


@pytest.mark.parametrize(("holds", "status"), [(True, "True"), (False, "False"), (None, "Unknown")])
def test_the_three_states_of_a_condition(holds: bool | None, status: str) -> None:
    assert condition("A", holds, "Ok").status == status


@given(st.text(max_size=2000))
def test_messages_have_no_control_characters_and_are_bounded(text: str) -> None:
    message = condition("A", True, "Ok", text).message
    assert len(message) <= MESSAGE_LENGTH
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\tc", "a b c"),
        ("\x1b[31mred", " [31mred"),
        ("x" * 2000, "x" * 1023 + "…"),
        ("x" * 1024, "x" * 1024),
        ("<b>ä</b>", "<b>ä</b>"),
    ],
    ids=["lines", "terminal-codes", "cut", "just-fits", "left-alone"],
)
def test_foreign_text_is_sanitized(text: str, message: str) -> None:
    assert condition("A", True, "Ok", text).message == message


EARLIER = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("uid", "message", "since"),
    [
        pytest.param("u", "no class", timestamp(EARLIER), id="same"),
        pytest.param("u", "no secret", timestamp(NOW), id="another"),
        pytest.param("former", "no class", timestamp(NOW), id="of-a-former-object"),
    ],
)
def test_a_warning_keeps_its_start_while_it_is_repeated(uid: str, message: str, since: str) -> None:
    now = Report(POD, "u", 1, warnings=(ReportedWarning(reason="R", message="no class"),))
    last = Report(
        POD,
        uid,
        1,
        warnings=(ReportedWarning(reason="R", message=message, since=timestamp(EARLIER)),),
    )
    [warning] = with_start_times(now.message("x"), last.message("x"), NOW).warnings
    assert (warning.message, warning.since) == ("no class", since)


class Unread(str):
    """Text that must not be walked through as a whole."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("walked through before it was cut")


def test_a_message_is_cut_before_it_is_made_printable() -> None:
    assert sanitize(Unread("\n" * 5_000_000)) == " " * (MESSAGE_LENGTH - 1) + "…"
