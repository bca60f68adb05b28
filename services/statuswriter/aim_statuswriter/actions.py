"""The actions that only the statuswriter has. Pure."""

from dataclasses import dataclass
from typing import Any, ClassVar

from aimcontroller.action import Action
from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class WriteStatus(Action):
    """Write the whole status of an object, guarded by the resourceVersion that it was computed
    from."""

    verb: ClassVar[str] = "write-status"
    is_guarded: ClassVar[bool] = True
    key: Key
    uid: str
    resource_version: str
    status: dict[str, Any]

    @property
    def target(self) -> Key:
        return self.key


@dataclass(frozen=True, slots=True)
class SendEvent(Action):
    """Send a Kubernetes Event (events.k8s.io/v1) on an object. `type`: Normal or Warning.

    With `since` one is sent for each value of it, by any process and after any number of tries.
    """

    verb: ClassVar[str] = "send-event"
    can_be_late: ClassVar[bool] = True
    regarding: Key
    uid: str
    type: str
    reason: str
    note: str
    since: str = ""
