"""A fault as data: its cause, the conditions that report it, and the step that removes the
cause."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aim_testing.fault_catalogue.place import Place
from aimschema.resources import Resource

EVENT = "Event"
Step = Callable[[Place], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Expected:
    """The condition of an object that shows the fault, with its reason and words that its message
    must have; EVENT: a Warning Event on it does."""

    kind: Resource
    name: str
    condition: str
    reason: str
    fragments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """`fault` describes the fault, `cause` causes it, `expected` are the conditions that report it.

    After `heal` has removed the cause, `healed` must follow automatically; None if a person has to
    re-create an object.
    """

    name: str
    fault: str
    cause: Step
    expected: tuple[Expected, ...]
    heal: Step | None = None
    healed: Expected | None = None


async def nothing(_: Place) -> None:
    """For causes that go away by themselves."""
