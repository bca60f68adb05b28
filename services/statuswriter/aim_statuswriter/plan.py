"""Decide what to write to the status of an object, and which Events to send. Pure and total.

1. A status without changes is not written.
2. A report on a former object of the same name is ignored (view.py), and so is one on an older
   generation than the status has (status.py).
3. A kind without status only gets Events.
4. An object with a spec too large for the bus only gets an Event about that.
5. A status that is not final, and changes neither the state nor a summary condition, waits HOLD_S
   for a better one, longer while writes are slow (aimcontroller.holds): several reports that come
   together are one write.
6. A first status that is not final waits FIRST_HOLD_S for the report of the service that resolves
   the object.
"""

import datetime
from dataclasses import replace

from aim_statuswriter import events
from aim_statuswriter.actions import WriteStatus
from aim_statuswriter.literals import literal_secrets
from aim_statuswriter.status import Status
from aim_statuswriter.view import ObjectView
from aimcontroller.plan import EMPTY_PLAN, Plan, actions
from aimcontroller.projection import Projection
from aimschema.resources import Key

HOLD_S = 0.05
FIRST_HOLD_S = 5.0
"""In a burst of services the deployer reports some seconds after the router."""


def plan(state: Projection, key: Key, now: datetime.datetime) -> Plan:
    obj = state.get(key)
    if obj is None or obj.deleting:
        return EMPTY_PLAN
    return plan_object(ObjectView.build(state, obj, now))


def plan_object(view: ObjectView) -> Plan:
    """First match wins."""
    match view:
        case ObjectView(has_spec=False):
            return actions(events.spec_too_large(view.obj))
        case ObjectView(has_status=False):
            return send_warnings(view)
        case ObjectView(is_changed=True, desired=dict() as status):
            return write_status(view, status)
        case _:
            return EMPTY_PLAN


def send_warnings(view: ObjectView) -> Plan:
    """The Events for an object without status."""
    literals = literal_secrets(view.obj, since=str(view.obj.generation))
    return actions(*events.requested_without_status(view.obj, view.reports), *literals)


def write_status(view: ObjectView, status: Status) -> Plan:
    """The write comes first: an Event is about a status that readers find on the object."""
    obj = view.obj
    written = actions(
        WriteStatus(obj.key, obj.uid, str(obj.version), status),
        *events.for_transition(obj, status),
        *events.requested_events(obj, view.reports),
        *(literal_secrets(obj) if view.is_new_generation else []),
    )
    return replace(written, hold_s=_hold_s(view))


def _hold_s(view: ObjectView) -> float:
    """How long the write may wait for a better one; first match wins."""
    match view:
        case ObjectView(is_progressing=True, is_incomplete=True):
            return FIRST_HOLD_S
        case ObjectView(can_wait=True):
            return HOLD_S
        case _:
            return 0.0
