"""One object with the reports of services on it, gathered once. Pure."""

import datetime
from dataclasses import dataclass

from aim_statuswriter.status import (
    Status,
    compose,
    is_equal,
    is_progressing,
    ready_generation,
    summary_of,
)
from aimcontroller.projection import KubeObject, Projection
from aimschema.messages import StatusReported
from aimschema.reasons import STATUS_OWNERSHIP, WARNING_REPORTERS


@dataclass(frozen=True, slots=True)
class ObjectView:
    """`reports`: by service; a report on a former object of the same name (another uid) does not
    count. `desired`: the composed status; None without a report or for a kind without status."""

    obj: KubeObject
    reports: dict[str, StatusReported]
    desired: Status | None

    @classmethod
    def build(cls, state: Projection, obj: KubeObject, now: datetime.datetime) -> "ObjectView":
        kind = obj.key.kind
        found = {
            service: state.report(obj.key, service)
            for service in STATUS_OWNERSHIP.get(kind, WARNING_REPORTERS)
        }
        reports = {
            service: report
            for service, report in found.items()
            if report is not None and report.uid == obj.uid
        }
        can_compose = obj.has_spec and bool(reports) and kind in STATUS_OWNERSHIP
        return cls(obj, reports, compose(obj, reports, now) if can_compose else None)

    @property
    def has_spec(self) -> bool:
        """False for a spec that is too large for the bus."""
        return self.obj.has_spec

    @property
    def has_status(self) -> bool:
        return self.obj.key.kind in STATUS_OWNERSHIP

    @property
    def is_changed(self) -> bool:
        return self.desired is not None and not is_equal(self.obj.status, self.desired)

    @property
    def is_progressing(self) -> bool:
        """The desired status is not final."""
        return self.desired is not None and is_progressing(self.desired)

    @property
    def can_wait(self) -> bool:
        """The desired status is not final, or not yet of this generation; state and summary are
        those that readers see already."""
        if self.desired is None or summary_of(self.obj.status) != summary_of(self.desired):
            return False
        return self.is_progressing or self.desired["observedGeneration"] < self.obj.generation

    @property
    def is_incomplete(self) -> bool:
        """Nothing is written yet, and the service that resolves the object has not reported: the
        first that owns a part of the status."""
        resolver = next(iter(STATUS_OWNERSHIP[self.obj.key.kind]))
        return not self.obj.conditions and resolver not in self.reports

    @property
    def is_new_generation(self) -> bool:
        """The desired Ready is of another generation than the existing one."""
        desired = [] if self.desired is None else self.desired["conditions"]
        return bool(ready_generation(self.obj.conditions) != ready_generation(desired))
