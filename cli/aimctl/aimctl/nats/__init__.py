"""Keys, certificates and permissions of NATS."""

from aimctl.component_registry import PLANNERS
from aimschema.reasons import WATCHER

ROTATABLE = (WATCHER, *PLANNERS, "console", "operator", "server", "ca")
"""What `aimctl nats init --rotate` takes: users, the server's certificate, and its authority."""
