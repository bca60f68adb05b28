"""The names that versions of KServe give to the mode with a Deployment, and how their webhooks
treat the other names. Pure.

0.16 names it Standard. Its controller accepts RawDeployment too, its webhook does not. Up to 0.15
(and in OpenShift AI) it is RawDeployment. Standard is then an unknown name: the cluster's default
mode applies, which by default is Serverless.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aimlab.kinds import Body

MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
ONLY_RAW = "customizing deploymentStrategy is only supported for raw deployment mode"


@dataclass(frozen=True, slots=True)
class Version:
    """`standard` is the name of the mode with a Deployment, `knative` of that with Knative; `also`
    maps older names."""

    standard: str
    knative: str
    default: str
    also: Mapping[str, str]

    def mode_of(self, isvc: Body) -> str:
        """What the status has, else what the annotation asks for, else the default."""
        recorded = (isvc.get("status") or {}).get("deploymentMode")
        if recorded:
            return str(recorded)
        requested = (isvc["metadata"].get("annotations") or {}).get(MODE_ANNOTATION, "")
        requested = self.also.get(requested, requested)
        return requested if requested in {self.standard, self.knative} else self.default

    def denial(self, isvc: Body, before: Body | None) -> str | None:
        """Why the validating webhook rejects the InferenceService; None where it does not."""
        requested = (isvc["metadata"].get("annotations") or {}).get(MODE_ANNOTATION)
        recorded = ((before or {}).get("status") or {}).get("deploymentMode")
        if recorded and requested is not None and requested != recorded:
            change = f"from '{recorded}' to '{requested}'"
            return f"update rejected: deploymentMode cannot be changed {change}"
        predictor = (isvc.get("spec") or {}).get("predictor") or {}
        return (
            ONLY_RAW if requested != self.standard and predictor.get("deploymentStrategy") else None
        )


OLD_NAMES = {"RawDeployment": "Standard", "Serverless": "Knative"}
VERSIONS: Mapping[str, Version] = {
    "0.15": Version("RawDeployment", "Serverless", default="Serverless", also={}),
    "0.16": Version("Standard", "Knative", default="Standard", also=OLD_NAMES),
}
NEWEST = VERSIONS["0.16"]
