"""What versions of KServe call the mode in which they make a Deployment, and what their webhook
says to the others' word. Pure.

0.16 calls it Standard. Its controller takes RawDeployment for the same, its webhook does not.
Up to 0.15 (and in OpenShift AI) it is RawDeployment, and Standard is a word like any other: the
cluster's default mode is taken, which by default is Serverless.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aimlab.kinds import Body

MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
ONLY_RAW = "customizing deploymentStrategy is only supported for raw deployment mode"


@dataclass(frozen=True, slots=True)
class Version:
    """`standard` is the word for a Deployment, `knative` for Knative; `also` reads older words."""

    standard: str
    knative: str
    default: str
    also: Mapping[str, str]

    def mode_of(self, isvc: Body) -> str:
        """What the status has, else what the annotation asks for, else the default."""
        recorded = (isvc.get("status") or {}).get("deploymentMode")
        if recorded:
            return str(recorded)
        asked = (isvc["metadata"].get("annotations") or {}).get(MODE_ANNOTATION, "")
        asked = self.also.get(asked, asked)
        return asked if asked in {self.standard, self.knative} else self.default

    def denial(self, isvc: Body, before: Body | None) -> str | None:
        """Why the validating webhook rejects the InferenceService; None where it does not."""
        asked = (isvc["metadata"].get("annotations") or {}).get(MODE_ANNOTATION)
        recorded = ((before or {}).get("status") or {}).get("deploymentMode")
        if recorded and asked is not None and asked != recorded:
            change = f"from '{recorded}' to '{asked}'"
            return f"update rejected: deploymentMode cannot be changed {change}"
        predictor = (isvc.get("spec") or {}).get("predictor") or {}
        return ONLY_RAW if asked != self.standard and predictor.get("deploymentStrategy") else None


OLD_WORDS = {"RawDeployment": "Standard", "Serverless": "Knative"}
VERSIONS: Mapping[str, Version] = {
    "0.15": Version("RawDeployment", "Serverless", default="Serverless", also={}),
    "0.16": Version("Standard", "Knative", default="Standard", also=OLD_WORDS),
}
NEWEST = VERSIONS["0.16"]
