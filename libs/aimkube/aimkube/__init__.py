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
    by_webhook,
    told,
)
from aimkube.lease import Lease, LeaseTiming, Standing
from aimkube.transport import Body, Fence
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
    "Fence",
    "Forbidden",
    "Invalid",
    "KubeError",
    "Lease",
    "LeaseTiming",
    "Listed",
    "Listing",
    "NotConfigured",
    "NotFound",
    "Rejected",
    "Removed",
    "Seen",
    "Standing",
    "Throttled",
    "Timing",
    "Unavailable",
    "by_webhook",
    "told",
]
