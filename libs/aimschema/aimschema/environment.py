"""Names of environment variables.

One environment serves all components: a component accepts the variables of the others.
"""

from typing import Final

PREFIX: Final = "AIM_"

COMPONENT_VARIABLES: Final = frozenset(
    {
        "AIM_CACHE_QUOTA",
        "AIM_CA_BUNDLE",
        "AIM_DISCOVERY_RETRY_S",
        "AIM_DOWNLOADER_IMAGE",
        "AIM_DOWNLOAD_ENV",
        "AIM_DOWNLOAD_EXCLUDE",
        "AIM_DOWNLOAD_INCLUDE",
        "AIM_DOWNLOAD_SERVICE_ACCOUNT",
        "AIM_GPU_TABLE",
        "AIM_JOB_RESOURCES",
        "AIM_KSERVE_MODE",
        "AIM_ROUTE_ANY_PATH",
        "AIM_ROUTE_HOSTS",
        "AIM_NAMESPACES",
        "AIM_NATS_HISTORY_MAX_BYTES",
        "AIM_NATS_MAX_BYTES",
        "AIM_NATS_REPLICAS",
        "AIM_POD_SECURITY",
    }
)
"""Variables that only some components read."""
