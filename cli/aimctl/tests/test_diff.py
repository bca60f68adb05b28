"""Whether a recorded object is the one that would be applied now, in events of every release."""

import copy
from typing import Any

import pytest

from aimcontroller.testing import obj
from aimctl.analysis.diff import applied_alike
from aimschema.messages import ObjectChanged
from aimschema.published import HASHES, published_part
from aimschema.resources import INFERENCE_SERVICE, JOB, SERVICE, key_of

Body = dict[str, Any]
CONTAINER = {
    "name": "c",
    "image": "i:1",
    "args": ["--a"],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
}
RUNTIME = obj(
    INFERENCE_SERVICE.kind,
    "s",
    owner=(SERVICE.kind, "s"),
    spec={"predictor": {"maxReplicas": 1, "containers": [CONTAINER]}},
)
DOWNLOAD = obj(
    JOB.kind,
    "j",
    owner=(SERVICE.kind, "s"),
    spec={"backoffLimit": 0, "template": {"spec": {"containers": [CONTAINER]}}},
)


def whole(body: Body) -> ObjectChanged:
    key = key_of(body)
    return ObjectChanged(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid="u",
        resource_version="1",
        object=body,
    )


def cut(body: Body) -> ObjectChanged:
    """As the current watcher publishes it."""
    event = whole(published_part(body))
    return ObjectChanged(
        **{name: getattr(event, name) for name in event.__struct_fields__}
        | {"truncated": (HASHES,)}
    )


def edited(body: Body, value: Any, *path: str | int) -> Body:
    changed: Any = copy.deepcopy(body)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return dict(changed)


@pytest.mark.parametrize("body", [RUNTIME, DOWNLOAD], ids=["runtime", "job"])
@pytest.mark.parametrize("event", [whole, cut])
def test_the_same_object_is_alike(event: Any, body: Body) -> None:
    assert applied_alike(event(body), body)


@pytest.mark.parametrize(
    ("event", "body", "path"),
    [
        pytest.param(whole, RUNTIME, ("spec", "predictor", "containers", 0, "image"), id="image"),
        pytest.param(
            cut, RUNTIME, ("spec", "predictor", "containers", 0, "image"), id="image-in-a-cut-event"
        ),
        pytest.param(
            whole, RUNTIME, ("spec", "predictor", "containers", 0, "env", 0, "value"), id="literal"
        ),
        pytest.param(
            cut,
            RUNTIME,
            ("spec", "predictor", "containers", 0, "env", 0, "name"),
            id="variable-in-a-cut-event",
        ),
        pytest.param(whole, DOWNLOAD, ("spec", "backoffLimit"), id="job"),
        pytest.param(
            whole,
            DOWNLOAD,
            ("spec", "template", "spec", "containers", 0, "args"),
            id="args-of-a-job",
        ),
    ],
)
def test_another_object_is_not(event: Any, body: Body, path: tuple[str | int, ...]) -> None:
    assert not applied_alike(event(body), edited(body, "other", *path))


def test_a_literal_that_is_not_in_the_event_is_not_compared() -> None:
    assert applied_alike(
        cut(RUNTIME),
        edited(RUNTIME, "other", "spec", "predictor", "containers", 0, "env", 0, "value"),
    )
