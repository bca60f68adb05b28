"""Chooses the deployment mode of an InferenceService. Pure.

1. KServe from 0.16 on calls the mode without Knative `Standard`. KServe up to 0.15 and OpenShift AI
   only know `RawDeployment`, and their webhook rejects deploymentStrategy in any other mode.
2. KServe 0.16 rejects deploymentStrategy together with `RawDeployment`.
3. The mode is part of the pod template, and KServe does not let it change: the accepted mode stays.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from aimcontroller.projection import ApplyRejected, KubeObject
from aimschema.labels import KSERVE_DEPLOYMENT_MODE
from aimschema.resources import INFERENCE_SERVICE

STANDARD: Final = "Standard"
RAW: Final = "RawDeployment"
AUTO: Final = "auto"
MODES: Final = (STANDARD, RAW)
Setting = Literal["auto", "Standard", "RawDeployment"]
_ABOUT_MODE = re.compile(r"deployment\s?(mode|strategy)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mode:
    """`name` is the value of the annotation. `strategy`: whether deploymentStrategy is sent."""

    name: str = STANDARD
    strategy: bool = True


def about_mode(message: str) -> bool:
    """Whether the API server rejects an InferenceService for its deployment mode or strategy."""
    return _ABOUT_MODE.search(message) is not None


def mode_of(existing: KubeObject | None, rejection: ApplyRejected | None, setting: str) -> Mode:
    rejected = any(map(about_mode, _messages(rejection)))
    if existing is None:
        fallback = RAW if rejected else STANDARD
        name = setting if setting in MODES else fallback
        return Mode(name, strategy=not (setting == RAW and rejected))
    name = _supported_mode(existing, setting)
    sent = "deploymentStrategy" in (existing.spec.get("predictor") or {})
    return Mode(name, strategy=name == STANDARD or (sent and not rejected))


def falls_back(existing: KubeObject | None, rejection: ApplyRejected | None, setting: str) -> bool:
    """Whether the rejection is about the mode and the other mode is still untried: no failure
    yet."""
    messages = _messages(rejection)
    if not messages or not about_mode(messages[0]) or any(map(about_mode, messages[1:])):
        return False
    return (
        setting == RAW
        or (existing is None and setting == AUTO)
        or (existing is not None and _supported_mode(existing, setting) == RAW)
    )


def _supported_mode(existing: KubeObject, setting: str) -> str:
    known = (
        existing.annotations.get(KSERVE_DEPLOYMENT_MODE),
        existing.status.get("deploymentMode"),
        setting,
    )
    return next((str(name) for name in known if name in MODES), STANDARD)


def _messages(rejection: ApplyRejected | None) -> tuple[str, ...]:
    """The messages of a rejected InferenceService, the latest first."""
    if rejection is None or rejection.target.kind != INFERENCE_SERVICE.kind:
        return ()
    return (rejection.message, *rejection.earlier)
