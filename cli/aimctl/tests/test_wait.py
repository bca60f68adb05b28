"""When waiting ends: when it is as wanted, when only a person can help, and not for what only
passes by."""

from io import StringIO
from typing import Any

import pytest

from aimcontroller.projection import Projection
from aimcontroller.testing import NAMESPACE, NOW, cr, projection, status_condition
from aimctl.analysis.diagnosis import diagnose
from aimctl.analysis.object_diagnosis import Diagnosis
from aimctl.commands import wait as awaiting
from aimctl.commands.wait import Code, Goal, WaitTracker, goal_of, hopeless, reached_by
from aimctl.output.console import PlainConsole
from aimschema.resources import INFERENCE_SERVICE, SERVICE, TEMPLATE, Key

CHAT = Key(SERVICE.kind, NAMESPACE, "chat")
READY = Goal("ready")


def service(*conditions: dict[str, Any]) -> dict[str, Any]:
    return cr(
        SERVICE.kind,
        "chat",
        {"model": "m", "templateRef": "fast"},
        status={"conditions": list(conditions)},
    )


RUNS = projection(service(status_condition("Ready", True, "Running", "/team/chat")))
STARTS = projection(service(status_condition("Ready", False, "CreatingRuntime", "starting")))
FAILED = projection(
    service(
        status_condition("Ready", False, "UnknownGPU", "no such GPU"),
        status_condition("Failure", True, "UnknownGPU"),
    )
)
NOTHING = Projection()


def diagnosis(state: Projection) -> Diagnosis:
    return diagnose(state, CHAT, NOW, {})


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("ready", Goal("ready")),
        ("deleted", Goal("deleted")),
        ("condition=Failure", Goal("condition", "Failure", "True")),
        ("condition=Ready=False", Goal("condition", "Ready", "False")),
    ],
)
def test_what_can_be_waited_for(text: str, goal: Goal) -> None:
    assert goal_of(text) == goal


@pytest.mark.parametrize("text", ["done", "condition", "condition=", "ready=True", ""])
def test_nothing_else_can_be_waited_for(text: str) -> None:
    with pytest.raises(ValueError, match="is none of ready, deleted"):
        goal_of(text)


@pytest.mark.parametrize(
    ("goal", "state", "reached"),
    [
        ("ready", RUNS, True),
        ("ready", STARTS, False),
        ("ready", NOTHING, False),
        ("deleted", RUNS, False),
        ("deleted", NOTHING, True),
        ("condition=Failure", FAILED, True),
        ("condition=Failure", STARTS, False),
        ("condition=Ready=false", STARTS, True),
        ("condition=Ready", NOTHING, False),
    ],
)
def test_what_is_reached(goal: str, state: Projection, *, reached: bool) -> None:
    assert reached_by(goal_of(goal), state, diagnosis(state)) is reached


WAITS_FOR_CACHE = service(
    status_condition("Ready", False, "CacheWarming", "0 %"),
    status_condition("Resolved", True),
    status_condition("CacheReady", False, "CacheWarming"),
)
NO_TEMPLATE = service(
    status_condition("Ready", False, "TemplateNotFound", "no template"),
    status_condition("Resolved", False, "TemplateNotFound"),
)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        pytest.param(FAILED, SERVICE.kind, id="failed"),
        pytest.param(NOTHING, SERVICE.kind, id="not-there"),
        pytest.param(projection(NO_TEMPLATE), TEMPLATE.kind, id="what-it-needs-is-not-there"),
        pytest.param(STARTS, None, id="at-work"),
        pytest.param(projection(WAITS_FOR_CACHE), None, id="waits-for-what-goes-on-by-itself"),
    ],
)
def test_what_only_a_person_can_change(state: Projection, cause: str | None) -> None:
    found = hopeless(READY, diagnosis(state))
    assert (found and found.key.kind) == cause


def test_a_deletion_is_never_hopeless() -> None:
    assert hopeless(Goal("deleted"), diagnosis(FAILED)) is None


class Script:
    """Returns these states one after another, then no change."""

    def __init__(self, *state: Projection) -> None:
        self.left = list(state)
        self.waits_s: list[float | None] = []

    async def next(self, within_s: float | None = None) -> Projection | None:
        self.waits_s.append(within_s)
        if self.left:
            return self.left.pop(0)
        assert within_s is not None, "would wait for ever"
        return None


async def decided(*state: Projection, goal: Goal = READY) -> tuple[Code, list[str]]:
    out = StringIO()
    tracker = WaitTracker(CHAT, goal, PlainConsole(file=out, width=300), quiet=False)
    return await tracker.until_decided(Script(*state)), out.getvalue().splitlines()


async def test_each_change_of_the_cause_is_printed_once() -> None:
    code, lines = await decided(STARTS, STARTS, projection(WAITS_FOR_CACHE), RUNS)
    assert code is Code.REACHED
    assert lines == ["AIMService/chat waits: starting", "AIMService/chat waits: 0 %"]


async def test_what_stays_failed_ends_it_with_what_to_do() -> None:
    code, lines = await decided(STARTS, FAILED)
    assert code is Code.HOPELESS
    assert lines[-1].startswith("AIMService/chat has failed: no such GPU; you: add the GPU model")


async def test_what_fails_and_recovers_meanwhile_does_not_end_it() -> None:
    assert (await decided(NOTHING, FAILED, STARTS, RUNS))[0] is Code.REACHED


async def test_news_that_change_nothing_do_not_make_it_wait_longer() -> None:
    script = Script(FAILED, FAILED, FAILED)
    await WaitTracker(CHAT, READY, PlainConsole(file=StringIO()), quiet=True).until_decided(script)
    limits = [wait_s for wait_s in script.waits_s if wait_s is not None]
    assert script.waits_s[0] is None
    assert limits == sorted(limits, reverse=True)
    assert limits[0] <= awaiting.PATIENCE_S


def isvc(*conditions: dict[str, Any]) -> dict[str, Any]:
    return cr(
        INFERENCE_SERVICE.kind,
        "chat",
        {},
        owner=(SERVICE.kind, "chat"),
        status={"conditions": list(conditions)},
    )


NO_POD = service(
    status_condition("Ready", False, "CreatingRuntime", "0 of 1 replicas are ready"),
    status_condition("Resolved", True),
    status_condition("CacheReady", True),
    status_condition("RuntimeReady", False, "CreatingRuntime", "0 of 1 replicas are ready"),
)


@pytest.mark.parametrize(
    ("state", "goal", "line"),
    [
        pytest.param(
            (NO_POD, isvc(status_condition("Ready", True))),
            READY,
            "AIMService/chat waits: 0 of 1 replicas are ready",
            id="what-it-needs-is-ready",
        ),
        pytest.param(
            (NO_POD, isvc(status_condition("Ready", False, ""))),
            READY,
            "InferenceService/chat is not ready yet",
            id="no-reason-no-message",
        ),
        pytest.param(
            (NO_POD, isvc(status_condition("Ready", False, "X", "y"))),
            READY,
            "InferenceService/chat is not ready yet: X: y",
            id="reason-and-message",
        ),
        pytest.param(
            (service(status_condition("Ready", False, "Starting")),),
            READY,
            "AIMService/chat waits: Starting",
            id="only-a-reason",
        ),
        pytest.param(
            (
                service(
                    status_condition("Ready", True, "Running", "up"),
                    status_condition(
                        "RoutingReady", False, "ConfiguringRoute", "no gateway answers"
                    ),
                ),
            ),
            goal_of("condition=RoutingReady"),
            "AIMService/chat is not RoutingReady=True: ConfiguringRoute: no gateway answers",
            id="another-condition-than-ready",
        ),
        pytest.param(
            (service(status_condition("Ready", True, "Running")),),
            goal_of("condition=Odd"),
            "AIMService/chat is not Odd=True",
            id="no-such-condition",
        ),
        pytest.param(
            (service(status_condition("Ready", True, "Running")),),
            goal_of("deleted"),
            "AIMService/chat is ready: Running",
            id="what-is-to-go",
        ),
    ],
)
async def test_what_is_ready_is_never_what_is_waited_for(
    state: tuple[dict[str, Any], ...], goal: Goal, line: str
) -> None:
    first = projection(*state)
    last = (
        NOTHING
        if goal.what == "deleted"
        else projection(
            service(
                status_condition("Ready", True, "Running"),
                status_condition(goal.type_ or "Ready", True),
            )
        )
    )
    assert await decided(first, last, goal=goal) == (Code.REACHED, [line])
