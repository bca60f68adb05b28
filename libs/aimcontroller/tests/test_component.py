"""Which updates of an object a component reconciles."""

from typing import Any

import pytest

from aimcontroller.component import Component
from aimcontroller.plan import EMPTY_PLAN
from aimcontroller.predicates import status_changed
from aimcontroller.projection import Projection, drop_object, fold
from aimcontroller.testing import Body, changed, cr, status_condition
from aimschema.resources import SERVICE, key_of

COMPONENT = Component(
    "some",
    (SERVICE,),
    (SERVICE,),
    lambda _state, key: [key],
    lambda _state, _key, _now: EMPTY_PLAN,
    predicates={SERVICE.kind: status_changed("path", "RoutingReady")},
)
READY = status_condition("RoutingReady", True)
STATUS: dict[str, Any] = {
    "path": "/a",
    "url": "http://a",
    "conditions": [READY, status_condition("Ready", True)],
}


def service(version: int = 1, **more: Any) -> Body:
    fields: dict[str, Any] = {"status": STATUS, "version": version} | more
    return cr(SERVICE.kind, "s", fields.pop("spec", {"replicas": 1}), **fields)


BEFORE = service()
KEY = key_of(BEFORE)


def is_reconciled(before: Body, after: Body, seq: int = 1) -> bool:
    state = fold(Projection(), changed(before), seq)
    return bool(COMPONENT.keys_to_reconcile(state, fold(state, changed(after), 2), KEY))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, False, id="only-the-version"),
        pytest.param({"status": STATUS | {"url": "http://b"}}, False, id="an-unread-field"),
        pytest.param({"status": STATUS | {"conditions": [READY]}}, False, id="an-unread-condition"),
        pytest.param({"status": STATUS | {"path": "/b"}}, True, id="a-read-field"),
        pytest.param({"status": {"path": "/a"}}, True, id="a-read-condition"),
        pytest.param({"status": {}}, True, id="no-status"),
        pytest.param({"status": None}, True, id="a-null-status"),
        pytest.param({"status": "Running"}, True, id="a-status-that-is-no-object"),
        pytest.param({"spec": {"replicas": 2}}, True, id="the-spec"),
        pytest.param({"generation": 2}, True, id="the-generation"),
        pytest.param({"annotations": {"a": "b"}}, True, id="an-annotation"),
        pytest.param({"labels": {"a": "b"}}, True, id="a-label"),
        pytest.param({"deleting": True}, True, id="the-deletion"),
        pytest.param({"owner": ("Job", "j")}, True, id="the-owner"),
        pytest.param({"uid": "another"}, True, id="a-new-object-of-the-name"),
    ],
)
def test_an_update_is_reconciled_if_what_is_read_changed(change: Body, expected: bool) -> None:
    assert is_reconciled(BEFORE, service(2, **change)) is expected


def test_the_event_of_an_own_write_is_reconciled() -> None:
    assert is_reconciled(BEFORE, BEFORE, seq=0)


def test_creation_and_deletion_are_reconciled() -> None:
    empty, state = Projection(), fold(Projection(), changed(BEFORE), 1)
    assert COMPONENT.keys_to_reconcile(empty, state, KEY) == [KEY]
    assert COMPONENT.keys_to_reconcile(state, drop_object(state, KEY), KEY) == [KEY]
