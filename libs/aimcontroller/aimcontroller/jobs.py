"""What a cluster asks of the pods of Jobs: resources that a quota counts, user ids that an
admission controller grants. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aimschema import quantities
from aimschema.kinds import ConfigSpec

Body = dict[str, Any]
_COUNTED = frozenset({"cpu", "memory", "ephemeral-storage"})


@dataclass(frozen=True, slots=True)
class JobRules:
    """Settings for the pods of Jobs.

    `resources`: a ResourceRequirements for each container; None takes the default of the Job.
    `openshift`: uid, gid and fsGroup come from the range of the namespace
    (SecurityContextConstraints), so they are left out.
    """

    resources: Body | None = None
    openshift: bool = False


DEFAULT_RULES = JobRules()


def pod_security(rules: JobRules, ids: Mapping[str, int]) -> Body:
    """A pod's securityContext for the level restricted (Pod Security Standards). `ids`:
    runAsUser, runAsGroup, fsGroup."""
    return {
        "runAsNonRoot": True,
        **({} if rules.openshift else ids),
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Body:
    """A container's securityContext for the level restricted."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def job_tolerations(config: ConfigSpec | None) -> list[Body]:
    """Tolerations for the pods of Jobs: those of the model servers of the namespace. A cluster may
    have tainted nodes only."""
    runtime = None if config is None else config.runtime
    return [
        each.model_dump(by_alias=True, exclude_none=True)
        for each in (() if runtime is None else runtime.tolerations)
    ]


def with_resources(container: Body, rules: JobRules, default: Body) -> Body:
    resources = default if rules.resources is None else rules.resources
    return container | ({"resources": resources} if resources else {})


def merge_resources(base: Body, own: Body) -> Body:
    """`base` with the amounts of `own`, by name. Where only one of request and limit is set, the
    other follows if it would be exceeded: a request raises a limit, a limit lowers a request."""
    merged = {
        part: {
            name: str(amount) for name, amount in (base.get(part, {}) | own.get(part, {})).items()
        }
        for part in ("requests", "limits")
    }
    requests, limits = merged["requests"], merged["limits"]
    for name in requests.keys() & limits.keys():
        if not _exceeds(requests[name], limits[name]):
            continue
        if name in own.get("requests", {}):
            limits[name] = requests[name]
        else:
            requests[name] = limits[name]
    return {part: amounts for part, amounts in merged.items() if amounts}


def _exceeds(amount: str, limit: str) -> bool:
    """False for texts that are not quantities: the API server rejects them."""
    try:
        return quantities.exact(amount) > quantities.exact(limit)
    except ValueError:
        return False


def parse_resources(text: str) -> Body | None:
    """JSON of a Kubernetes ResourceRequirements; None for an empty text. Raises ValueError,
    naming what is wrong."""
    if not text.strip():
        return None
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error}); give a ResourceRequirements") from error
    if not isinstance(parsed, dict) or not parsed.keys() <= {"requests", "limits"}:
        raise ValueError('must be an object with "requests" and "limits"')
    found = {part: _amounts(part, amounts) for part, amounts in parsed.items()}
    limits = found.get("limits", {})
    for name, amount in found.get("requests", {}).items():
        if name in limits and quantities.exact(amount) > quantities.exact(limits[name]):
            raise ValueError(f"requests.{name} {amount} is above limits.{name} {limits[name]}")
    return found


def _amounts(part: str, amounts: object) -> dict[str, str]:
    """As text: the schema of a Quantity is a string."""
    if not isinstance(amounts, dict):
        raise ValueError(f"{part} must be an object")  # noqa: TRY004 (pydantic turns only ValueErrors into its own)
    for name, amount in amounts.items():
        if name not in _COUNTED and "/" not in name and not name.startswith("hugepages-"):
            raise ValueError(f"{part}.{name} is no resource; cpu, memory and ephemeral-storage are")
        if (
            isinstance(amount, bool)
            or not isinstance(amount, str | int | float)
            or quantities.exact(amount) < 0
        ):
            raise ValueError(f"{part}.{name} {amount!r} is not a quantity")
    return {name: str(amount) for name, amount in amounts.items()}
