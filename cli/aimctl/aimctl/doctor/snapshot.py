"""The facts of a cluster and its bus. Each is known, or has the reason why it is not."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from aim_deployer.gpus import GpuTable
from aimbus import BusStats
from aimkube.rbac import Grant
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    GATEWAY,
    GATEWAY_CLASS,
    INFERENCE_SERVICE,
    LEASE,
    MODEL,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    SERVICE,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
    TEMPLATE,
    Resource,
)

Body: TypeAlias = dict[str, Any]
Level = Literal["ok", "warning", "error"]
LISTED = (
    MODEL,
    CONFIG,
    TEMPLATE,
    SERVICE,
    CACHE,
    STORAGE_CLASS,
    CLAIM,
    GATEWAY,
    GATEWAY_CLASS,
    NODE,
    NAMESPACE,
    SERVICE_ACCOUNT,
    LEASE,
)
LISTED_TOO = (INFERENCE_SERVICE, DEPLOYMENT, NETWORK_POLICY, ENDPOINT_SLICE)


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was found; `fix`: a command or a field to change, empty where all is well."""

    area: str
    level: Level
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It could not be found out."""

    why: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether a service's account (or, for `aimctl up`, the person who asks) is granted what a
    service needs."""

    grant: Grant
    allowed: bool


@dataclass(frozen=True, slots=True)
class Access:
    """`accounts`: by SubjectAccessReview. `own`: by SelfSubjectAccessReview, asked where the
    accounts are not there or cannot be asked of."""

    accounts: tuple[Checked, ...] | Unknown
    own: tuple[Checked, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`objects` are by kind; a kind that is not installed has none. `crds` are by name, None if
    missing.

    `registries` has, by host, why it does not answer; empty if it does. `nats_url` is empty if it
    is not configured.
    """

    namespace: str
    now: datetime.datetime
    nats_url: str
    server: str | Unknown
    crds: Mapping[str, Body | None] | Unknown
    objects: Mapping[str, tuple[Body, ...] | Unknown]
    access: Access | Unknown
    bus: BusStats | Unknown
    gpus: GpuTable
    registries: Mapping[str, str]

    def of(self, resource: Resource) -> tuple[Body, ...]:
        """All objects of a kind that could be listed."""
        found = self.objects.get(resource.kind, ())
        return () if isinstance(found, Unknown) else found


def name_of(body: Body) -> str:
    """`namespace/name`, or the name."""
    metadata = body["metadata"]
    return "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)


def is_condition_true(body: Body, type_: str) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == type_ and each.get("status") == "True" for each in conditions)
