"""`aimctl wait`: waits until an object reaches a goal, and prints what it waits for. It gives up
when only a person can help.

A hopeless state must last `PATIENCE_S`: objects that were applied together arrive one after
another, and a failure stays until the service has reconciled its fix.
"""

import asyncio
import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

import typer

from aimcontroller.projection import Projection
from aimctl.analysis.diagnosis import diagnose, diagnosis_data, root_cause
from aimctl.analysis.object_diagnosis import Diagnosis, because_of
from aimctl.connect import connected_bus
from aimctl.invocation import a_console, parse_key, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data
from aimctl.parsing import duration_s
from aimctl.state_stream import watched_states
from aimschema import reasons
from aimschema.resources import AIM_KINDS, Key

PATIENCE_S = 3.0
OURS = frozenset(resource.kind for resource in AIM_KINDS)


class Code(IntEnum):
    """Exit codes of `aimctl wait`; the last is that of timeout(1)."""

    REACHED = 0
    HOPELESS = 1
    TIMED_OUT = 124


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for; `type_` and `status` are those of a condition."""

    what: Literal["ready", "deleted", "condition"]
    type_: str = ""
    status: str = "True"

    def __str__(self) -> str:
        return f"{self.type_}={self.status}" if self.type_ else self.what


def goal_of(text: str) -> Goal:
    """`ready`, `deleted`, `condition=X` or `condition=X=False`, as kubectl has the last two.
    Raises ValueError."""
    what, _, rest = text.partition("=")
    type_, _, status = rest.partition("=")
    if text in {"ready", "deleted"}:
        return Goal("ready" if text == "ready" else "deleted")
    if what != "condition" or not type_:
        raise ValueError(
            f"{text!r} is none of ready, deleted, condition=TYPE, condition=TYPE=STATUS"
        )
    return Goal("condition", type_, status or "True")


def reached_by(goal: Goal, state: Projection, diagnosis: Diagnosis) -> bool:
    obj = state.get(diagnosis.key)
    match goal.what:
        case "ready":
            return diagnosis.state == "ready"
        case "deleted":
            return obj is None
        case _:
            found = None if obj is None else obj.condition(goal.type_)
            return found is not None and str(found.get("status")).lower() == goal.status.lower()


def condition_of(goal: Goal, state: Projection, key: Key) -> Mapping[str, Any]:
    """The condition that is waited for, as it is; empty where the object or the condition is
    missing, and for a deletion."""
    obj = state.get(key)
    found = (
        None
        if obj is None or goal.what == "deleted"
        else obj.condition(goal.type_ or reasons.READY)
    )
    return found or {}


def hopeless(goal: Goal, diagnosis: Diagnosis) -> Diagnosis | None:
    """The part of the chain that requires manual action: an AIM object that has failed, or one that
    does not exist. Nothing blocks a deletion."""
    if goal.what == "deleted":
        return None
    return next(
        (
            each
            for each in _chain(diagnosis)
            if each.state == "missing" or (each.state == "failed" and each.key.kind in OURS)
        ),
        None,
    )


def _chain(diagnosis: Diagnosis) -> Iterator[Diagnosis]:
    """The causes before what they cause."""
    for behind in diagnosis.causes:
        yield from _chain(behind)
    yield diagnosis


async def wait_for(
    key: Key, goal: Goal, timeout_s: float, console: PlainConsole, form: Form
) -> Code:
    """Raises RuntimeError where there is no bus or no stream to read."""
    tracker = WaitTracker(key, goal, console, quiet=form != "text")
    async with connected_bus() as bus, watched_states(bus) as states:
        try:
            async with asyncio.timeout(timeout_s):
                code = await tracker.until_decided(states)
        except TimeoutError:
            code = Code.TIMED_OUT
    if form != "text":
        print_data(
            console,
            {"reached": code is Code.REACHED, "exit_code": int(code), **tracker.data()},
            form,
        )
    elif code is Code.REACHED:
        print_text(console, f"{key} is {goal}", "green")
    else:
        if tracker.why():
            print_text(
                console, f"{key.kind}/{key.name} {goal.type_ or reasons.READY}{tracker.why()}"
            )
        print_text(
            console,
            f"{key} is not {goal}"
            + (f" after {timeout_s:g} s" if code is Code.TIMED_OUT else ": manual action required"),
            "bold red",
        )
    return code


class StateSource(Protocol):
    """As aimctl.state_stream has it."""

    async def next(self, within_s: float | None = None) -> Projection | None: ...


class WaitTracker:
    """Prints each change of the cause; `quiet` only records it."""

    def __init__(self, key: Key, goal: Goal, console: PlainConsole, *, quiet: bool) -> None:
        self._key = key
        self._goal = goal
        self._console = console
        self._quiet = quiet
        self._diagnosis: Diagnosis | None = None
        self._condition: Mapping[str, Any] = {}
        self._last_line = ""

    def data(self) -> dict[str, Any]:
        return {} if self._diagnosis is None else diagnosis_data(self._diagnosis)

    def why(self) -> str:
        """The reason and the message of the condition that is waited for, after a colon; empty
        where there is none."""
        return because_of(self._condition)

    async def until_decided(self, states: StateSource) -> Code:
        clock, give_up_s = asyncio.get_running_loop().time, float("inf")
        while True:
            left_s = give_up_s - clock()
            state = await states.next(max(0.0, left_s) if left_s < float("inf") else None)
            if state is None:
                return Code.HOPELESS
            diagnosis = self._diagnosis = diagnose(
                state, self._key, datetime.datetime.now(datetime.UTC), {}
            )
            self._condition = condition_of(self._goal, state, self._key)
            if reached_by(self._goal, state, diagnosis):
                return Code.REACHED
            self._print_cause(hopeless(self._goal, diagnosis) or root_cause(diagnosis))
            if hopeless(self._goal, diagnosis) is None:
                give_up_s = float("inf")
            elif give_up_s == float("inf"):
                give_up_s = clock() + PATIENCE_S

    def _print_cause(self, cause: Diagnosis) -> None:
        is_reason = cause.state != "ready" or self._goal.what == "deleted"
        summary = cause.summary if is_reason else f"is not {self._goal}{self.why()}"
        line = f"{cause.key.kind}/{cause.key.name} {summary}" + (
            f"; you: {cause.remedy}" if cause.remedy else ""
        )
        if line != self._last_line and not self._quiet:
            print_text(self._console, line)
        self._last_line = line


def wait(what: str, namespace: str | None, goal: str, timeout: str, form: Form) -> None:
    key = parse_key(what, namespace)
    try:
        parsed_goal, timeout_s = goal_of(goal), duration_s(timeout)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console = a_console()
    raise typer.Exit(run(console, wait_for(key, parsed_goal, timeout_s, console, form)))
