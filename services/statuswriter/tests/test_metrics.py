"""Objects by state, as they are counted at a scrape."""

from aim_statuswriter.metrics import measure
from aimcontroller import testing as builders
from aimschema.resources import MODEL, SERVICE


def counted(*bodies: builders.Body) -> dict[tuple[str, str], float]:
    (metric,) = measure(builders.projection(*bodies))
    return {
        (sample.labels["kind"], sample.labels["status"]): sample.value
        for sample in metric.samples
        if sample.value
    }


def test_objects_are_counted_by_the_state_they_are_in() -> None:
    services = [
        builders.cr(SERVICE.kind, name, {}, status={"status": state})
        for name, state in (("a", "Running"), ("b", "Running"), ("c", "Failed"))
    ]
    assert counted(*services) == {("AIMService", "Running"): 2, ("AIMService", "Failed"): 1}


def test_a_model_is_counted_by_the_condition_that_holds() -> None:
    conditions = [
        builders.status_condition("Ready", False),
        builders.status_condition("Progressing", False),
        builders.status_condition("Failure", True),
    ]
    assert counted(builders.cr(MODEL.kind, "a", {}, status={"conditions": conditions})) == {
        ("AIMClusterModel", "Failure"): 1
    }


def test_a_missing_or_unexpected_status_is_unknown() -> None:
    strange = builders.cr(SERVICE.kind, "a", {}, status={"status": "Levitating"})
    assert counted(
        strange, builders.cr(SERVICE.kind, "b", {}), builders.cr(MODEL.kind, "m", {})
    ) == {
        ("AIMService", "Unknown"): 2,
        ("AIMClusterModel", "Unknown"): 1,
    }
