"""Kubernetes Events of the lab's controllers and node, as core/v1 objects. Pure.

An Event's name follows from its content, so that repeating it creates no second one.
"""

import hashlib
from datetime import datetime

from aimlab.controller_loop import Create, Write
from aimlab.kinds import Body, stamp
from aimschema.resources import Resource

CORE_EVENT = Resource("Event", "", "v1", "events")


def warning(about: Body, reason: str, message: str, component: str, now: datetime) -> Create:
    """A Warning Event on the object."""
    metadata = about["metadata"]
    digest = hashlib.sha256(f"{metadata['uid']}:{reason}:{message}".encode()).hexdigest()[:16]
    involved = {"apiVersion": about["apiVersion"], "kind": about["kind"]}
    involved |= {key: metadata[key] for key in ("namespace", "name", "uid")}
    own = {"name": f"{metadata['name'][:200]}.{digest}", "namespace": metadata["namespace"]}
    body: Body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": own,
        "involvedObject": involved,
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
    }
    return Create(CORE_EVENT, body)


def failed_create(about: Body, why: str, now: datetime) -> list[Write]:
    """The Event of a controller whose pod the API server rejects."""
    component = f"{about['kind'].lower()}-controller"
    return [warning(about, "FailedCreate", f"Error creating: {why}", component, now)]
