"""kstatus for kinds that it does not know, such as ours: what `sigs.k8s.io/cli-utils`
(pkg/kstatus/status) computes from metadata and status.

The rules are its documented ones: deletion, generation, Reconciling, Stalled, then Ready.
"""

from typing import Any

Body = dict[str, Any]
CURRENT = "Current"
IN_PROGRESS = "InProgress"
FAILED = "Failed"
TERMINATING = "Terminating"


def status_of(body: Body) -> str:
    """Current, InProgress, Failed or Terminating."""
    metadata = body["metadata"]
    status = body.get("status") or {}
    if "deletionTimestamp" in metadata:
        return TERMINATING
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation"):
        return IN_PROGRESS
    by_type = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    if by_type.get("Reconciling") == "True":
        return IN_PROGRESS
    if by_type.get("Stalled") == "True":
        return FAILED
    if by_type.get("Ready") in {"False", "Unknown"}:
        return IN_PROGRESS
    return CURRENT
