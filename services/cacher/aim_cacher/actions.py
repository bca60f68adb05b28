"""The action that only the cacher has. Pure."""

from dataclasses import dataclass
from typing import ClassVar

from aimcontroller.action import Action
from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class FollowLog(Action):
    """Follow the progress lines of a running container; each is `Observation(about, PROGRESS,
    ...)`."""

    verb: ClassVar[str] = "follow-log"
    pod: Key
    uid: str
    container: str
    about: Key

    @property
    def summary(self) -> str:
        return f"follow log of {self.pod.name}"
