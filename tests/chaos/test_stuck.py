"""Whatever is missing or fails for good: when all has come to rest, nothing says that it is
progressing unless it has something to wait for.

Something to wait for is a time that is still to come (`nextAttemptTime`), or an object that the
message names and that is not done yet.
"""

import datetime
import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_testing.chaos import fleet
from aim_testing.chaos.chance import chance
from aim_testing.chaos.fastnode import Truth
from aim_testing.chaos.history import History
from aim_testing.chaos.sim import START
from aimlab.kinds import Body
from aimschema import names, reasons
from aimschema.messages import parse_timestamp
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    ROUTE,
    SERVICE,
    STORAGE_CLASS,
    TEMPLATE,
)

SIZE = fleet.Fleet(namespaces=2, templates=2, services=2)
HOURS = datetime.timedelta(hours=2)
WITH_SUMMARY = (MODEL, TEMPLATE, SERVICE, CACHE)
SOURCE = fleet.sources_of(0)[0][0]
Flaw = Callable[[History], None]


def without(kind: str) -> Flaw:
    def leave_out(history: History) -> None:
        history.to_create = [body for body in history.to_create if body["kind"] != kind]

    return leave_out


def never_created(kind: str) -> Flaw:
    def delete(history: History) -> None:
        for key in [key for key in history.cluster.objects if key.kind == kind]:
            history.cluster.delete(key)

    return delete


def both(*flaws: Flaw) -> Flaw:
    def apply(history: History) -> None:
        for flaw in flaws:
            flaw(history)

    return apply


def with_spec(kind: str, **changed: object) -> Flaw:
    def change(history: History) -> None:
        history.to_create = [
            body if body["kind"] != kind else {**body, "spec": {**body["spec"], **changed}}
            for body in history.to_create
        ]

    return change


def taken(kind: str, name: str) -> Flaw:
    def create(history: History) -> None:
        metadata = {"name": name, "namespace": "ns0"}
        history.cluster.create(
            {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": metadata,
                "spec": {},
                "status": {"observed": 1},
            }
        )

    return create


def never(kind: str) -> Flaw:
    def stick(history: History) -> None:
        history.stuck |= {kind}

    return stick


def ends(container: str, exit_code: int, message: str) -> Flaw:
    """Every Job with this container ends like this."""

    def change(history: History) -> None:
        before = history.outcome

        def outcome(job: Body, truth: Truth) -> tuple[int, str, str]:
            if job["spec"]["template"]["spec"]["containers"][0]["name"] == container:
                return exit_code, message, json.dumps({"message": message})
            return before(job, truth)

        history.outcome = outcome

    return change


def two_caches(history: History) -> None:
    """Of one source."""
    spec = {"sourceUri": SOURCE, "size": "1Gi"}
    for name in ("mine", "mine-too"):
        metadata: Body = {"name": name, "namespace": "ns0", "labels": {}}
        history.to_create.append(
            {
                "apiVersion": CACHE.api_version,
                "kind": CACHE.kind,
                "metadata": metadata,
                "spec": spec,
            }
        )


def same_workload_id(history: History) -> None:
    for body in history.to_create:
        if body["kind"] == SERVICE.kind:
            body["metadata"]["labels"] = {"aim.silogen.ai/workload-id": "same"}


def same_model_name(history: History) -> None:
    first = next(body for body in history.to_create if body["kind"] == MODEL.kind)
    history.to_create.append({**first, "metadata": {"name": "second"}})


FLAWS: dict[str, Flaw] = {
    "no-model": without(MODEL.kind),
    "no-template": without(TEMPLATE.kind),
    "no-config": without(CONFIG.kind),
    "no-named-config": with_spec(SERVICE.kind, configRef="absent"),
    "no-gateway-named": with_spec(CONFIG.kind, routing={}),
    "no-gateway": both(never_created(GATEWAY.kind), never(ROUTE.kind)),
    "no-storage-class": both(never_created(STORAGE_CLASS.kind), never(CLAIM.kind)),
    "storage-class-named-that-is-not-there": both(
        with_spec(CONFIG.kind, cacheStorageClassName="absent"), never(CLAIM.kind)
    ),
    "unknown-gpu": with_spec(TEMPLATE.kind, gpuModel="TPU"),
    "model-of-another-name": with_spec(SERVICE.kind, model="another"),
    "claim-name-taken": taken(CLAIM.kind, names.cache_claim(names.cache_for(SOURCE))),
    "config-map-name-taken": taken("ConfigMap", names.discovery_config_map("t0")),
    "runtime-name-taken": taken(INFERENCE_SERVICE.kind, "s0"),
    "route-name-taken": taken(ROUTE.kind, "s0"),
    "two-caches-of-a-source": two_caches,
    "same-workload-id": same_workload_id,
    "same-model-name": same_model_name,
    "discovery-fails": ends("discovery", 1, "no GPU"),
    "discovery-reports-nothing": ends("discovery", 0, "[]"),
    "source-not-found": ends("downloader", 10, "no such model"),
    "gated": ends("downloader", 11, "accept the licence"),
    "downloads-break-off": ends("downloader", 20, "reset"),
    "downloads-are-killed": ends("downloader", 137, ""),
    "claims-are-never-bound": never(CLAIM.kind),
    "jobs-never-run": never(JOB.kind),
    "kserve-never-answers": never(INFERENCE_SERVICE.kind),
    "gateway-never-answers": never(ROUTE.kind),
}


def stranded(history: History) -> list[str]:
    """Objects that say they are progressing with nothing to wait for, in words."""
    objects = list(history.cluster.objects.values())
    return [
        f"{body['kind']} {body['metadata'].get('namespace', '-')}/{body['metadata']['name']}:"
        f" {progressing['reason']}: {progressing['message']}"
        for body in objects
        if body["kind"] in {resource.kind for resource in WITH_SUMMARY}
        and (progressing := condition(body, reasons.PROGRESSING)).get("status") != "False"
        and not has_a_time_to_come(body, history.clock.now)
        and not any(names_it(progressing, body, other) and not done(other) for other in objects)
    ]


def condition(body: Body, type_: str) -> Body:
    """An object without any report is stranded too."""
    found = (body.get("status") or {}).get("conditions") or ()
    return next(
        (each for each in found if each["type"] == type_),
        {"reason": "nothing", "message": "is reported"},
    )


def has_a_time_to_come(body: Body, now: datetime.datetime) -> bool:
    due = body["status"].get("nextAttemptTime") if "status" in body else None
    return due is not None and parse_timestamp(due) >= now


def names_it(progressing: Body, body: Body, other: Body) -> bool:
    same_place = other["metadata"].get("namespace") in {
        None,
        body["metadata"].get("namespace"),
        fleet.GATEWAY_NAMESPACE,
    }
    return (
        other is not body
        and same_place
        and other["metadata"]["name"]
        in progressing["message"].replace("/", " ").replace(";", " ").replace(":", " ").split()
    )


def done(other: Body) -> bool:
    """Whether nothing more is to come of it by itself."""
    status = other.get("status") or {}
    match other["kind"]:
        case "PersistentVolumeClaim":
            return status.get("phase") == "Bound"
        case "Job":
            return "conditions" in status
        case "InferenceService":
            return "observed" in status
        case "HTTPRoute":
            return "parents" in status
        case _ if other["kind"] in {resource.kind for resource in WITH_SUMMARY}:
            return bool(condition(other, reasons.PROGRESSING).get("status") != "True")
        case _:
            return True


def brought_to_rest(flaws: Iterable[str], seed: int | None) -> History:
    history = History(None if seed is None else chance(seed), SIZE)
    history.ends_at = START + HOURS
    for name in flaws:
        FLAWS[name](history)
    for process in history.processes:
        process.restart()
    history.run()
    return history


@pytest.mark.parametrize("flaw", FLAWS)
def test_one_thing_is_wrong(flaw: str) -> None:
    history = brought_to_rest([flaw], None)
    assert stranded(history) == []


@given(
    seed=st.integers(0, 1_000_000),
    flaws=st.lists(st.sampled_from(sorted(FLAWS)), min_size=2, max_size=4, unique=True),
)
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_several_things_are_wrong(seed: int, flaws: list[str]) -> None:
    assert stranded(brought_to_rest(flaws, seed)) == []


def test_every_flaw_leaves_something_unready() -> None:
    """Guards the guards."""
    for flaw in FLAWS:
        history = brought_to_rest([flaw], None)
        watched = (
            body
            for key, body in history.cluster.objects.items()
            if key.kind in {SERVICE.kind, CACHE.kind, MODEL.kind}
        )
        ready = [condition(body, reasons.READY).get("status") for body in watched]
        assert set(ready) != {"True"} or flaw == "no-config", flaw
