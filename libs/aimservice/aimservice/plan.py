"""What a planner returns: data for the shell to carry out, nothing done yet."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aimschema.messages import ReportedCondition, StatusReported
from aimschema.resources import Key, key_of
from aimschema.text import printable
from aimservice.projection import Seen


@dataclass(frozen=True, slots=True)
class ApplyObject:
    """This object should be as `body` says. Skipped by the shell where it already is."""

    body: dict[str, Any]

    @property
    def key(self) -> Key:
        return key_of(self.body)


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """The object with this uid should go, its dependents with it (background propagation)."""

    key: Key
    uid: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """The whole log of a finished container; comes back as `Learned(of, ...)`, once.

    `of` is the pod, or a Job of whose pods no event has told: then the API server is asked for the newest that succeeded.
    """

    of: Key
    uid: str
    container: str


@dataclass(frozen=True, slots=True)
class FollowLog:
    """Progress lines of a running container; comes back as `Learned(about, "progress", ...)`."""

    pod: Key
    uid: str
    container: str
    about: Key


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """The whole status of an object, guarded by the resourceVersion it was computed from."""

    key: Key
    uid: str
    resource_version: str
    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SendEvent:
    """A Kubernetes Event (events.k8s.io/v1) on an object. `type`: Normal or Warning."""

    regarding: Key
    uid: str
    type: str
    reason: str
    note: str


Action: TypeAlias = ApplyObject | DeleteObject | ReadLog | FollowLog | WriteStatus | SendEvent


@dataclass(frozen=True, slots=True)
class Report:
    """All that the planning service says on one object. `fields`: top-level status fields."""

    key: Key
    uid: str
    generation: int
    conditions: tuple[ReportedCondition, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)

    def message(self, service: str) -> StatusReported:
        return StatusReported(
            kind=self.key.kind,
            namespace=self.key.namespace,
            name=self.key.name,
            uid=self.uid,
            service=service,
            observed_generation=self.generation,
            conditions=self.conditions,
            fields=self.fields,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in order, reports, and when to look again without an event (None: never)."""

    actions: tuple[Action, ...] = ()
    reports: tuple[Report, ...] = ()
    requeue_after_s: float | None = None

    def __or__(self, other: "Plan") -> "Plan":
        """Both; the earlier of the two times."""
        times = [time_s for time_s in (self.requeue_after_s, other.requeue_after_s) if time_s is not None]
        return Plan(self.actions + other.actions, self.reports + other.reports, min(times, default=None))


NOTHING = Plan()


def act(*actions: Action) -> Plan:
    return Plan(actions=actions)


def report(seen: Seen, *conditions: ReportedCondition, **fields: Any) -> Plan:
    """Say `conditions` and status `fields` on an object; fields that are None are left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    return Plan(reports=(Report(seen.key, seen.uid, seen.generation, conditions, given),))


def look_again(after_s: float) -> Plan:
    return Plan(requeue_after_s=max(0.0, after_s))


MESSAGE_LENGTH = 1024


def condition(type_: str, status: bool | None, reason: str, message: str = "") -> ReportedCondition:
    """A condition; `status` None is Unknown. Control characters go, the message is cut to 1,024 characters."""
    clean = printable(message)
    cut = clean if len(clean) <= MESSAGE_LENGTH else clean[: MESSAGE_LENGTH - 1] + "…"
    return ReportedCondition(type=type_, status={True: "True", False: "False", None: "Unknown"}[status], reason=reason, message=cut)
