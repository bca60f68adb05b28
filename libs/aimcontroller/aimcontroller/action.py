"""Actions: what a plan asks the controller to carry out, as data. Pure.

A component adds its own kinds of action as subclasses of `Action`, with a handler
(aimcontroller.handler).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from aimschema.resources import Key, key_of


class Action:
    """The base of all actions. `verb` names the kind of action in the records of actions on the
    bus.

    `is_guarded`: the API server rejects it for an object that it does not have, so nothing is read
    before it. `can_be_late`: after a write of the same plan nothing waits for it.
    """

    __slots__ = ()
    verb: ClassVar[str]
    is_guarded: ClassVar[bool] = False
    can_be_late: ClassVar[bool] = False

    @property
    def target(self) -> Key | None:
        """The object that the action changes or reads; None: the reconciled one."""
        return None

    @property
    def summary(self) -> str:
        """The action in words, such as `apply Job a`."""
        target = self.target
        return self.verb if target is None else f"{self.verb} {target.kind} {target.name}"


@dataclass(frozen=True, slots=True)
class ApplyObject(Action):
    """Apply this object. The controller skips it where the object already is like that."""

    verb: ClassVar[str] = "apply"
    body: dict[str, Any]

    @property
    def key(self) -> Key:
        return key_of(self.body)

    @property
    def target(self) -> Key:
        return self.key


@dataclass(frozen=True, slots=True)
class DeleteObject(Action):
    """Delete the object with this uid and its dependents (background propagation)."""

    verb: ClassVar[str] = "delete"
    key: Key
    uid: str

    @property
    def target(self) -> Key:
        return self.key


@dataclass(frozen=True, slots=True)
class PatchObject(Action):
    """Set these fields of the object with this uid: a JSON merge patch (RFC 7386), null removes a
    field. Nothing else changes.

    For changes that are needed while the whole object cannot be rendered. A later apply decides
    over these fields again.
    """

    verb: ClassVar[str] = "patch"
    key: Key
    uid: str
    patch: dict[str, Any]

    @property
    def target(self) -> Key:
        return self.key


@dataclass(frozen=True, slots=True)
class ReadEvents(Action):
    """Read the newest Warning Event on an object; the result is `Observation(of, LATEST_WARNING,
    LatestWarning)`."""

    verb: ClassVar[str] = "read-events"
    of: Key
    uid: str

    @property
    def target(self) -> Key:
        return self.of

    @property
    def summary(self) -> str:
        return f"read Events of {self.of.kind} {self.of.name}"
