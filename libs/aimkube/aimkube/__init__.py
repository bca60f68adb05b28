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
    describe_error,
    is_from_webhook,
)
from aimkube.lease import LeadershipState, Lease, LeaseTiming
from aimkube.transport import Body, Fence
from aimkube.watch import Deleted, KindNotServed, Modified, Snapshot, Timing, WatchEvent

__all__ = [
    "AlreadyExists",
    "Body",
    "Cause",
    "Cluster",
    "Conflict",
    "Deleted",
    "Expired",
    "Fence",
    "Forbidden",
    "Invalid",
    "KindNotServed",
    "KubeError",
    "LeadershipState",
    "Lease",
    "LeaseTiming",
    "Listing",
    "Modified",
    "NotConfigured",
    "NotFound",
    "Rejected",
    "Snapshot",
    "Throttled",
    "Timing",
    "Unavailable",
    "WatchEvent",
    "describe_error",
    "is_from_webhook",
]
