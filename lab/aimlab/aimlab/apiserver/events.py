"""Events are one collection with two forms: core v1 (stored) and events.k8s.io/v1. Pure
conversion between them (KEP-383)."""

from aimlab.apiserver.objects import Obj

INVOLVED = ("apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid")
CORE_FIELDS = (
    *(f"involvedObject.{name}" for name in INVOLVED),
    "reason",
    "reportingComponent",
    "source",
    "type",
)
NEW_FIELDS = (*(f"regarding.{name}" for name in INVOLVED), "reason", "reportingController", "type")

# events.k8s.io/v1 name -> core v1 name
NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
OLD_NAMES = {core: new for new, core in NAMES.items()}


def to_core(event: Obj) -> Obj:
    """An events.k8s.io/v1 Event as core v1 stores it."""
    return {NAMES.get(name, name): value for name, value in event.items()} | {"apiVersion": "v1"}


def from_core(event: Obj) -> Obj:
    """A stored Event as events.k8s.io/v1 shows it; empty strings that only core v1 writes are
    left out."""
    shown = {OLD_NAMES.get(name, name): value for name, value in event.items() if value != ""}
    return shown | {"apiVersion": "events.k8s.io/v1"}


def fill(event: Obj) -> None:
    """The fields a core v1 Event always shows."""
    for name, empty in (
        ("source", {}),
        ("firstTimestamp", None),
        ("lastTimestamp", None),
        ("eventTime", None),
    ):
        event.setdefault(name, empty)
    for name in ("reportingComponent", "reportingInstance"):
        event.setdefault(name, "")
