"""Condition types, who reports them, and every reason, each spelled once.

A service withdraws a condition by leaving it out of its report; `OWNED` has the types and
status fields of each service, so that the statuswriter knows what a report without one withdraws.
"""

from typing import Final

from aimschema.resources import CACHE, MODEL, SERVICE, TEMPLATE
from aimschema.states import TemplateState

READY: Final = "Ready"
PROGRESSING: Final = "Progressing"
FAILURE: Final = "Failure"
SUMMARY: Final = (READY, PROGRESSING, FAILURE)
NO_FAILURE: Final = "NoFailure"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
KSTATUS: Final = (RECONCILING, STALLED)
"""Read by GitOps tools (sigs.k8s.io/cli-utils, kstatus): True or absent."""
DERIVED: Final = (*SUMMARY, *KSTATUS)
"""What the statuswriter derives from the reports of services."""

# AIMClusterModel
IMAGE_INSPECTED: Final = "ImageInspected"
INSPECTED: Final = "Inspected"
IMAGE_NOT_FOUND: Final = "ImageNotFound"
REGISTRY_UNREACHABLE: Final = "RegistryUnreachable"
METADATA_MISSING: Final = "MetadataMissing"
NOT_INSPECTED: Final = "NotInspected"
DUPLICATE_NAME: Final = "DuplicateName"

# AIMServiceTemplate
DISCOVERED: Final = "Discovered"
AWAITING_DISCOVERY: Final = "AwaitingDiscovery"
MODEL_NOT_FOUND: Final = "ModelNotFound"
PROFILES_DISCOVERED: Final = "ProfilesDiscovered"
DISCOVERY_FAILED: Final = "DiscoveryFailed"
UNSUPPORTED_PROFILE: Final = "UnsupportedProfile"
CACHE_WARM: Final = "CacheWarm"
WARM_REQUESTED: Final = "WarmRequested"
WARMING: Final = "Warming"
WARM: Final = "Warm"
WARM_FAILED: Final = "WarmFailed"

# ModelCache
STORAGE_READY: Final = "StorageReady"
PVC_PENDING: Final = "PVCPending"
PVC_PROVISIONING: Final = "PVCProvisioning"
PVC_BOUND: Final = "PVCBound"
PVC_LOST: Final = "PVCLost"
PVC_TERMINATING: Final = "PVCTerminating"
STORAGE_CLASS_MISSING: Final = "StorageClassMissing"
INSUFFICIENT_CAPACITY: Final = "InsufficientCapacity"
FILLED: Final = "Filled"
WAITING_FOR_PVC: Final = "WaitingForPVC"
DOWNLOADING: Final = "Downloading"
VERIFYING: Final = "Verifying"
RETRY_BACKOFF: Final = "RetryBackoff"
DOWNLOAD_FAILED: Final = "DownloadFailed"
AUTH_ERROR: Final = "AuthError"
SOURCE_NOT_FOUND: Final = "SourceNotFound"
CHECKSUM_MISMATCH: Final = "ChecksumMismatch"
QUOTA_EXCEEDED: Final = "QuotaExceeded"
EVICTING: Final = "Evicting"
DUPLICATE_SOURCE: Final = "DuplicateSource"
ENV_IGNORED: Final = "EnvIgnored"

# AIMService
RESOLVED: Final = "Resolved"
VALIDATION_FAILED: Final = "ValidationFailed"
TEMPLATE_NOT_FOUND: Final = "TemplateNotFound"
TEMPLATE_NOT_READY: Final = "TemplateNotReady"
TEMPLATE_FAILED: Final = "TemplateFailed"
RUNTIME_CONFIG_MISSING: Final = "RuntimeConfigMissing"
UNKNOWN_GPU: Final = "UnknownGPU"
CACHE_READY: Final = "CacheReady"
WAITING_FOR_CACHE: Final = "WaitingForCache"
CACHE_WARMING: Final = "CacheWarming"
CACHE_WARM_REASON: Final = "CacheWarm"
CACHE_FAILED: Final = "CacheFailed"
CACHE_LOST: Final = "CacheLost"
CACHE_NOT_REQUESTED: Final = "CacheNotRequested"
RUNTIME_READY: Final = "RuntimeReady"
CREATING_RUNTIME: Final = "CreatingRuntime"
RUNTIME_FAILED: Final = "RuntimeFailed"
STOPPED: Final = "Stopped"
ROUTING_READY: Final = "RoutingReady"
CONFIGURING_ROUTE: Final = "ConfiguringRoute"
ROUTE_READY: Final = "RouteReady"
ROUTE_FAILED: Final = "RouteFailed"
ROUTING_DISABLED: Final = "RoutingDisabled"
NAME_CONFLICT: Final = "NameConflict"

# Warning Events alone
SECRET_MISSING: Final = "SecretMissing"  # noqa: S105 (a reason)
CONTESTED: Final = "Contested"
QUOTA_IGNORED: Final = "QuotaIgnored"
SEVERAL_LISTENERS: Final = "SeveralListeners"
LITERAL_SECRET: Final = "LiteralSecret"  # noqa: S105 (a reason)
SPEC_TOO_LARGE: Final = "SpecTooLarge"

# Summary states
FAILED_STATE: Final = TemplateState.FAILED.value
AVAILABLE_STATE: Final = TemplateState.AVAILABLE.value

# Summary words of their own
STARTING: Final = "Starting"
RUNNING: Final = "Running"
PENDING: Final = "Pending"

DISCOVERY: Final = "discovery"
CACHER: Final = "cacher"
DEPLOYER: Final = "deployer"
ROUTER: Final = "router"
STATUSWRITER: Final = "statuswriter"
WATCHER: Final = "watcher"
COMPONENTS: Final = (DISCOVERY, CACHER, DEPLOYER, ROUTER, STATUSWRITER, WATCHER)

WARNING_REPORTERS: Final = (CACHER, ROUTER)
"""The services that check an AIMNamespaceConfig, which has no status, and request Warning Events on
it."""

STATUS_OWNERSHIP: Final[dict[str, dict[str, tuple[frozenset[str], frozenset[str]]]]] = {
    MODEL.kind: {DISCOVERY: (frozenset({IMAGE_INSPECTED}), frozenset())},
    TEMPLATE.kind: {
        DISCOVERY: (
            frozenset({DISCOVERED}),
            frozenset({"modelSources", "profile", "attempts", "nextAttemptTime"}),
        ),
        CACHER: (frozenset({CACHE_WARM}), frozenset()),
    },
    CACHE.kind: {
        CACHER: (
            frozenset({STORAGE_READY, FILLED}),
            frozenset(
                {
                    "persistentVolumeClaim",
                    "size",
                    "progress",
                    "sizeBytes",
                    "revision",
                    "manifestDigest",
                    "attempts",
                    "nextAttemptTime",
                }
            ),
        ),
        DEPLOYER: (frozenset(), frozenset({"lastUsed"})),
    },
    SERVICE.kind: {
        DEPLOYER: (
            frozenset({RESOLVED, CACHE_READY, RUNTIME_READY}),
            frozenset({"resolvedTemplate", "readyReplicas"}),
        ),
        ROUTER: (frozenset({ROUTING_READY}), frozenset({"path", "url"})),
    },
}
"""By kind and service: the condition types and the status fields that it alone reports."""
