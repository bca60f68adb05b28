"""What GitOps tools make of our statuses: Argo CD's Lua, Flux' CEL and kstatus, over statuses that
the statuswriter composes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cel
import pytest
import yaml
from lupa import LuaRuntime

from aim_statuswriter.status import compose
from aim_statuswriter.summary import SERVICE_STATES
from aim_testing import kstatus
from aimcontroller.testing import NOW, cr, projection
from aimschema import reasons
from aimschema.messages import ReportedCondition, StatusReported
from aimschema.resources import CACHE, CONFIG, MODEL, SERVICE, TEMPLATE, Key

ROOT = Path(__file__).parents[2]
GITOPS = ROOT / "deploy" / "gitops"
Body = dict[str, Any]
SPECS: dict[str, Body] = {
    MODEL.kind: {"name": "m:1", "image": "example.org/m:1"},
    TEMPLATE.kind: {"model": "m:1", "metric": "latency", "gpusPerReplica": 1, "gpuModel": "MI300X"},
    CACHE.kind: {"sourceUri": "hf://a/b"},
    SERVICE.kind: {"model": "m:1", "templateRef": "t", "replicas": 1},
}
RUNNING = {
    "Resolved": reasons.RESOLVED,
    "CacheReady": reasons.CACHE_WARM_REASON,
    "RuntimeReady": reasons.RUNTIME_READY,
    "RoutingReady": reasons.ROUTE_READY,
}
UNMET = {
    reasons.TEMPLATE_NOT_FOUND: ("Resolved", "Progressing", kstatus.IN_PROGRESS),
    reasons.MODEL_NOT_FOUND: ("Resolved", "Progressing", kstatus.IN_PROGRESS),
    reasons.RUNTIME_CONFIG_MISSING: ("Resolved", "Progressing", kstatus.IN_PROGRESS),
    reasons.UNKNOWN_GPU: ("Resolved", "Degraded", kstatus.IN_PROGRESS),
    reasons.TEMPLATE_NOT_READY: ("Resolved", "Progressing", kstatus.IN_PROGRESS),
    reasons.TEMPLATE_FAILED: ("Resolved", "Degraded", kstatus.FAILED),
    reasons.VALIDATION_FAILED: ("Resolved", "Degraded", kstatus.FAILED),
    reasons.WAITING_FOR_CACHE: ("CacheReady", "Progressing", kstatus.IN_PROGRESS),
    reasons.CACHE_WARMING: ("CacheReady", "Progressing", kstatus.IN_PROGRESS),
    reasons.CACHE_FAILED: ("CacheReady", "Degraded", kstatus.IN_PROGRESS),
    reasons.CACHE_LOST: ("CacheReady", "Degraded", kstatus.IN_PROGRESS),
    reasons.CREATING_RUNTIME: ("RuntimeReady", "Progressing", kstatus.IN_PROGRESS),
    reasons.RUNTIME_FAILED: ("RuntimeReady", "Degraded", kstatus.IN_PROGRESS),
    reasons.CONFIGURING_ROUTE: ("RoutingReady", "Progressing", kstatus.IN_PROGRESS),
    reasons.ROUTE_FAILED: ("RoutingReady", "Degraded", kstatus.IN_PROGRESS),
    reasons.NAME_CONFLICT: ("RuntimeReady", "Degraded", kstatus.IN_PROGRESS),
}
"""Of a service, by reason: the condition, the health in Argo CD, the status of kstatus."""


def object_with(
    kind: str, *conditions: tuple[str, str, str], spec: Body | None = None, **fields: Any
) -> Body:
    """An object with the status that these conditions, as (type, status, reason), lead to."""
    body = cr(kind, "x", SPECS[kind] | (spec or {}))
    obj = projection(body).get(Key(kind, body["metadata"].get("namespace"), "x"))
    assert obj is not None
    reports = {}
    for service, (types, names) in reasons.STATUS_OWNERSHIP[kind].items():
        own = tuple(
            ReportedCondition(type=type_, status=status, reason=reason, message="why")
            for type_, status, reason in conditions
            if type_ in types
        )
        own_fields = {name: value for name, value in fields.items() if name in names}
        reports[service] = StatusReported(
            kind=kind,
            namespace=obj.key.namespace,
            name="x",
            uid=obj.uid,
            service=service,
            observed_generation=obj.generation,
            conditions=own,
            fields=own_fields,
        )
    return {**body, "status": compose(obj, reports, NOW)}


def service(unmet: Mapping[str, str], spec: Body | None = None) -> Body:
    conditions = [
        (type_, "False" if type_ in unmet else "True", unmet.get(type_, reason))
        for type_, reason in RUNNING.items()
    ]
    return object_with(SERVICE.kind, *conditions, spec=spec)


def stopped() -> Body:
    return service({}, {"replicas": 0})


def outdated() -> Body:
    body = service({})
    body["metadata"]["generation"] += 1
    return body


CASES = [
    pytest.param(service({}), "Healthy", kstatus.CURRENT, id="running"),
    pytest.param(stopped(), "Suspended", kstatus.CURRENT, id="stopped"),
    pytest.param(outdated(), "Progressing", kstatus.IN_PROGRESS, id="older-generation"),
    *(
        pytest.param(service({type_: reason}), health, status, id=reason)
        for reason, (type_, health, status) in UNMET.items()
    ),
    pytest.param(
        object_with(MODEL.kind, ("ImageInspected", "True", "Inspected")),
        "Healthy",
        kstatus.CURRENT,
        id="model",
    ),
    pytest.param(
        object_with(MODEL.kind, ("ImageInspected", "False", "RegistryUnreachable")),
        "Degraded",
        kstatus.IN_PROGRESS,
        id="model-unreachable",
    ),
    pytest.param(
        object_with(MODEL.kind, ("ImageInspected", "False", "ImageNotFound")),
        "Degraded",
        kstatus.FAILED,
        id="model-not-found",
    ),
    pytest.param(
        object_with(TEMPLATE.kind, ("Discovered", "False", "ModelNotFound")),
        "Progressing",
        kstatus.IN_PROGRESS,
        id="template-without-model",
    ),
    pytest.param(
        object_with(TEMPLATE.kind, ("Discovered", "False", "DiscoveryFailed"), attempts=9),
        "Degraded",
        kstatus.FAILED,
        id="template-failed",
    ),
    pytest.param(
        object_with(TEMPLATE.kind, ("Discovered", "True", "ProfilesDiscovered")),
        "Healthy",
        kstatus.CURRENT,
        id="template",
    ),
    pytest.param(
        object_with(CACHE.kind, ("StorageReady", "False", "StorageClassMissing")),
        "Progressing",
        kstatus.FAILED,
        id="cache-without-class",
    ),
    pytest.param(
        object_with(CACHE.kind, ("Filled", "False", "Downloading")),
        "Progressing",
        kstatus.IN_PROGRESS,
        id="cache-downloading",
    ),
    pytest.param(
        object_with(CACHE.kind, ("Filled", "False", "AuthError")),
        "Degraded",
        kstatus.FAILED,
        id="cache-without-access",
    ),
    pytest.param(
        object_with(CACHE.kind, ("Filled", "True", "Warm")), "Healthy", kstatus.CURRENT, id="cache"
    ),
]
FLUX_OF_ARGO = {
    "Healthy": "Current",
    "Suspended": "Current",
    "Progressing": "InProgress",
    "Degraded": "Failed",
}


def argo_health(body: Body) -> str:
    config = yaml.safe_load((GITOPS / "argocd-health.yaml").read_text())
    script = yaml.safe_load(config["data"]["resource.customizations"])["aim.silogen.ai/*"]
    lua = LuaRuntime(unpack_returned_tuples=True)
    run = lua.eval(f"function(obj)\n{script['health.lua']}\nend")
    return str(run(lua.table_from(body, recursive=True))["status"])


def flux_status(body: Body) -> str:
    """As fluxcd/pkg/runtime/cel: in progress, failed, current; else, and after an error, in
    progress."""
    checks = yaml.safe_load((GITOPS / "flux-health-checks.yaml").read_text())
    check = next(each for each in checks if each["kind"] == body["kind"])
    for field, status in {
        "inProgress": "InProgress",
        "failed": "Failed",
        "current": "Current",
    }.items():
        try:
            if cel.evaluate(check[field], {name: body[name] for name in body}):
                return status
        except Exception:
            return "InProgress"
    return "InProgress"


@pytest.mark.parametrize(("body", "health", "status"), CASES)
def test_argo_cd_flux_and_kstatus_agree(body: Body, health: str, status: str) -> None:
    assert argo_health(body) == health
    assert flux_status(body) == FLUX_OF_ARGO[health]
    assert kstatus.status_of(body) == status


@pytest.mark.parametrize("kind", SPECS)
def test_an_object_without_status_is_in_progress(kind: str) -> None:
    body = cr(kind, "x", SPECS[kind])
    body.pop("status", None)
    assert argo_health(body) == "Progressing"
    assert flux_status(body) == "InProgress"


def test_a_config_is_always_healthy() -> None:
    assert argo_health(cr(CONFIG.kind, "default", {})) == "Healthy"


def test_every_reason_of_a_service_has_a_row() -> None:
    assert set(UNMET) == set(SERVICE_STATES)
