"""Metrics of the statuswriter: status writes, and objects by state."""

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from aimcontroller.projection import KubeObject, Projection
from aimschema import reasons
from aimschema.resources import CACHE, MODEL, SERVICE, TEMPLATE
from aimschema.states import ServiceState, TemplateState

STATUS_WRITES = Counter("aim_status_writes", "Statuses written to the API server", ["kind"])
SUMMARY = (reasons.READY, reasons.PROGRESSING, reasons.FAILURE)
UNKNOWN = "Unknown"
"""The object has no status yet, or an unexpected one."""
STATES = {
    MODEL.kind: (*SUMMARY, UNKNOWN),
    TEMPLATE.kind: (*(state.value for state in TemplateState), UNKNOWN),
    CACHE.kind: (*(state.value for state in TemplateState), UNKNOWN),
    SERVICE.kind: (*(state.value for state in ServiceState), UNKNOWN),
}


def measure(cluster_state: Projection) -> Iterable[Metric]:
    """The number of objects by kind and state. States without objects are 0, so that alerts have a
    value."""
    objects = GaugeMetricFamily(
        "aim_object_status", "Objects by kind and state", labels=["kind", "status"]
    )
    for kind, states in STATES.items():
        tally = Tally(state_of(each) for each in cluster_state.in_all_namespaces(kind))
        for state in states:
            objects.add_metric([kind, state], tally[state])
    return [objects]


def state_of(obj: KubeObject) -> str:
    """`status.status`. A model has none: its state is the summary condition that is True."""
    state = (
        obj.status.get("status")
        if obj.key.kind != MODEL.kind
        else next(filter(obj.is_condition_true, SUMMARY), None)
    )
    return str(state) if state in STATES[obj.key.kind] else UNKNOWN
