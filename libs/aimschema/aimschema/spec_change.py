"""Which manager last changed the spec of an object, from `metadata.managedFields` (KEP-555). Pure
and total.

1. An entry counts if it owns `spec` or fields of it. Entries of a subresource, such as status, do
   not.
2. The newest entry is the one with the latest time. Of entries with equal times it is the last in
   the order of the API server: by operation, then by manager. An entry without a valid time is
   older than all others.
3. A manager is the name of a program, not of a person. A change that only removes fields of other
   managers leaves no entry.
"""

import datetime
from typing import Any, NamedTuple

from aimschema.messages import parse_timestamp, timestamp

_NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class SpecChange(NamedTuple):
    """`operation`: Apply or Update. `time`: RFC 3339 in UTC, empty if unknown. All are empty if no
    manager owns fields of the spec."""

    manager: str = ""
    operation: str = ""
    time: str = ""


UNKNOWN = SpecChange()


def newest_spec_change(managed_fields: Any) -> SpecChange:
    """The newest change of the spec. Malformed entries are ignored."""
    entries = managed_fields if isinstance(managed_fields, list | tuple) else ()
    found = [_change(entry) for entry in entries if _owns_spec(entry)]
    return max(found, default=(_NEVER, UNKNOWN), key=_order)[1]


def _order(found: tuple[datetime.datetime, SpecChange]) -> tuple[datetime.datetime, str, str]:
    moment, change = found
    return moment, change.operation, change.manager


def _owns_spec(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.get("subresource"):
        return False
    fields = entry.get("fieldsV1")
    has_names = all(
        isinstance(entry.get(name), str) and entry[name] for name in ("manager", "operation")
    )
    return has_names and isinstance(fields, dict) and isinstance(fields.get("f:spec"), dict)


def _change(entry: dict[str, Any]) -> tuple[datetime.datetime, SpecChange]:
    moment = _moment(entry.get("time"))
    text = "" if moment is None else timestamp(moment)
    return moment or _NEVER, SpecChange(entry["manager"], entry["operation"], text)


def _moment(text: Any) -> datetime.datetime | None:
    try:
        moment = parse_timestamp(text)
        return moment.astimezone(datetime.UTC) if moment.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None
