"""Renders Kubernetes Events (events.k8s.io/v1). Pure."""

import datetime
from typing import Any

from aim_statuswriter.actions import SendEvent
from aimschema.reasons import STATUSWRITER
from aimschema.resources import AIM_GROUP, EVENT, RESOURCES, Key

Body = dict[str, Any]
NOTE_LENGTH_BYTES = 1024  # the API server counts bytes
CLUSTER_EVENTS_NAMESPACE = "default"


def event_name(key: Key, suffix: str) -> str:
    return f"{key.name[:240].rstrip('-.')}.{suffix}"


def event_namespace(key: Key) -> str:
    return key.namespace or CLUSTER_EVENTS_NAMESPACE


def event(action: SendEvent, now: datetime.datetime, suffix: str, instance: str) -> Body:
    """An events.k8s.io/v1 Event. Events of cluster-scoped objects are in `default`, where kubectl
    reads them."""
    key = action.regarding
    resource = RESOURCES[key.kind]
    regarding = {
        "apiVersion": resource.api_version,
        "kind": key.kind,
        "name": key.name,
        "uid": action.uid,
    }
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": event_name(key, suffix), "namespace": event_namespace(key)},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{AIM_GROUP}/{STATUSWRITER}",
        "reportingInstance": instance,
        "action": "Reconcile",
        "type": action.type,
        "reason": action.reason,
        "note": action.note.encode()[:NOTE_LENGTH_BYTES].decode(errors="ignore"),
        "regarding": regarding | ({} if key.namespace is None else {"namespace": key.namespace}),
    }
