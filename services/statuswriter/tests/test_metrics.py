"""Objects by state, as they are counted at a scrape."""

from aim_statuswriter.metrics import measure
from aimcontroller import testing as given
from aimschema.resources import MODEL, SERVICE


def counted(*bodies: given.Body) -> dict[tuple[str, str], float]:
    (metric,) = measure(given.projection(*bodies))
    return {
        (sample.labels["kind"], sample.labels["status"]): sample.value
        for sample in metric.samples
        if sample.value
    }


def test_objects_are_counted_by_the_state_they_are_in() -> None:
    services = [
        given.cr(SERVICE.kind, name, {}, status={"status": state})
        for name, state in (("a", "Running"), ("b", "Running"), ("c", "Failed"))
    ]
    assert counted(*services) == {("AIMService", "Running"): 2, ("AIMService", "Failed"): 1}


def test_a_model_is_counted_by_the_condition_that_holds() -> None:
    conditions = [
        given.status_condition("Ready", False),
        given.status_condition("Progressing", False),
        given.status_condition("Failure", True),
    ]
    assert counted(given.cr(MODEL.kind, "a", {}, status={"conditions": conditions})) == {
        ("AIMClusterModel", "Failure"): 1
    }


def test_a_missing_or_unexpected_status_is_unknown() -> None:
    strange = given.cr(SERVICE.kind, "a", {}, status={"status": "Levitating"})
    assert counted(strange, given.cr(SERVICE.kind, "b", {}), given.cr(MODEL.kind, "m", {})) == {
        ("AIMService", "Unknown"): 2,
        ("AIMClusterModel", "Unknown"): 1,
    }
