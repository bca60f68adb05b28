"""The Kubernetes API as AIM services use it. See README.md and aimkube.errors."""

from aimkube.client import Cluster, Listing
from aimkube.errors import (
    AlreadyExists,
    Cause,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubeError,
    NotConfigured,
    NotFound,
    Rejected,
    Throttled,
    Unavailable,
)
from aimkube.transport import Body
from aimkube.watch import Absent, Changed, Listed, Removed, Seen, Timing

__all__ = [
    "Absent",
    "AlreadyExists",
    "Body",
    "Cause",
    "Changed",
    "Cluster",
    "Conflict",
    "Expired",
    "Forbidden",
    "Invalid",
    "KubeError",
    "Listed",
    "Listing",
    "NotConfigured",
    "NotFound",
    "Rejected",
    "Removed",
    "Seen",
    "Throttled",
    "Timing",
    "Unavailable",
]
