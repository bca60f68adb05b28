"""The actions that only discovery has. Pure."""

from dataclasses import dataclass
from typing import ClassVar

from aimcontroller.action import Action
from aimschema.resources import Key


@dataclass(frozen=True, slots=True)
class ReadLog(Action):
    """Read the whole log of a finished container; the result is `Observation(of, LOG, ...)`.

    `of` is the pod. It is the Job where no event about its pods has come: then the handler asks
    the API server for the newest pod that succeeded.
    """

    verb: ClassVar[str] = "read-log"
    of: Key
    uid: str
    container: str

    @property
    def summary(self) -> str:
        return f"read log of {self.of.name}"


@dataclass(frozen=True, slots=True)
class InspectImage(Action):
    """Read the labels of an image from its registry, with the credentials of these pull secrets;
    the result is `Observation(model, INSPECTION, ...)`.

    `inputs` is a digest of what the inspection depends on; `attempt` counts from 1.
    """

    verb: ClassVar[str] = "inspect-image"
    model: Key
    image: str
    pull_secrets: tuple[str, ...]
    inputs: str
    attempt: int
