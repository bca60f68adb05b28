"""What is used of kubernetes.aio: its configuration, authentication and HTTP client."""

from aimkube.lazy_packages import defer_init

defer_init("kubernetes", "kubernetes.aio")

from kubernetes.aio.client.api_client import ApiClient  # noqa: E402 (after defer_init)
from kubernetes.aio.client.configuration import Configuration  # noqa: E402
from kubernetes.aio.config import (  # noqa: E402
    ConfigException,
    load_incluster_config,
    load_kube_config,
)

__all__ = [
    "ApiClient",
    "ConfigException",
    "Configuration",
    "load_incluster_config",
    "load_kube_config",
]
