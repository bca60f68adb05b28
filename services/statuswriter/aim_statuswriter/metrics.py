"""What the statuswriter counts: writes, and the objects by the state that they are in."""

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from aimcontroller.projection import Projection, Seen
from aimschema import reasons
from aimschema.kinds import ServiceState, TemplateState
from aimschema.resources import CACHE, MODEL, SERVICE, TEMPLATE

STATUS_WRITES = Counter("aim_status_writes", "Statuses written to the API server", ["kind"])
SUMMARY = (reasons.READY, reasons.PROGRESSING, reasons.FAILURE)
UNKNOWN = "Unknown"
"""The object has no status yet, or one that nobody here knows."""
STATES = {
    MODEL.kind: (*SUMMARY, UNKNOWN),
    TEMPLATE.kind: (*(state.value for state in TemplateState), UNKNOWN),
    CACHE.kind: (*(state.value for state in TemplateState), UNKNOWN),
    SERVICE.kind: (*(state.value for state in ServiceState), UNKNOWN),
}


def measure(cluster_state: Projection) -> Iterable[Metric]:
    """Every kind that has a status, with every state it can be in, also where there is none, so
    that an alert sees a 0."""
    objects = GaugeMetricFamily(
        "aim_object_status", "Objects by kind and state", labels=["kind", "status"]
    )
    for kind, states in STATES.items():
        tally = Tally(state_of(each) for each in cluster_state.everywhere(kind))
        for state in states:
            objects.add_metric([kind, state], tally[state])
    return [objects]


def state_of(obj: Seen) -> str:
    """`status.status`; of a model, which has none, the condition of the summary that is True."""
    state = (
        obj.status.get("status")
        if obj.key.kind != MODEL.kind
        else next(filter(obj.holds, SUMMARY), None)
    )
    return str(state) if state in STATES[obj.key.kind] else UNKNOWN
