"""Faults of a service's inputs, runtime and route, reported on the service."""

import asyncio
from typing import Any

from aim_testing.fault_catalogue.case import EVENT, Case, Expected, Step
from aim_testing.fault_catalogue.place import GATEWAY, Place
from aimcontroller.drift import IMMEDIATE_REPAIRS
from aimschema import labels, names, reasons
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.resources import CACHE, CONFIG, INFERENCE_SERVICE, ROUTE, SERVICE, TEMPLATE
from aimschema.resources import GATEWAY as GATEWAY_KIND

RUNNING = Expected(SERVICE, "s", reasons.READY, reasons.RUNNING)


def resolved(reason: str, *fragments: str) -> tuple[Expected, ...]:
    return (Expected(SERVICE, "s", reasons.RESOLVED, reason, fragments),)


def cached(reason: str, *fragments: str) -> tuple[Expected, ...]:
    return (Expected(SERVICE, "s", reasons.CACHE_READY, reason, fragments),)


def runtime(reason: str, *fragments: str) -> tuple[Expected, ...]:
    return (Expected(SERVICE, "s", reasons.RUNTIME_READY, reason, fragments),)


def routing(reason: str, *fragments: str) -> tuple[Expected, ...]:
    return (Expected(SERVICE, "s", reasons.ROUTING_READY, reason, fragments),)


NO_BACKEND = routing(reasons.CONFIGURING_ROUTE, "BackendNotFound")
NO_ROUTE = routing(reasons.CONFIGURING_ROUTE, "created once AIMServiceTemplate t exists")
"""Reported together with the condition that blocks the runtime; awaited if the page shows it."""


def service_with(
    *, template: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any
) -> Step:
    """All of it, with these changes."""

    async def cause(place: Place) -> None:
        await place.config()
        await place.put_source()
        await place.model()
        await place.template(**template or {})
        await place.service(metadata=metadata, **spec)

    return cause


def configured(**spec: Any) -> Step:
    """All of it, with this in its config."""

    async def cause(place: Place) -> None:
        await place.config(**spec)
        await place.model()
        await place.template()
        await place.service()

    return cause


def config_becomes(**spec: Any) -> Step:
    return lambda place: place.edit(CONFIG, "default", {"spec": spec})


async def without_template(place: Place) -> None:
    await place.config()
    await place.model()
    await place.service()


async def without_model(place: Place) -> None:
    await place.config()
    await place.template()
    await place.service()


async def template_for_another_model(place: Place) -> None:
    await place.config()
    await place.model()
    await place.template(model="another:1")
    await place.template("right")
    await place.service()


async def template_waits(place: Place) -> None:
    await place.config()
    await place.model("noise")
    await place.template()
    await place.service()


async def template_answers(place: Place) -> None:
    await place.image()
    await place.retry(TEMPLATE, "t")


async def template_goes(place: Place) -> None:
    await place.running()
    await place.delete(TEMPLATE, "t")


async def config_goes(place: Place) -> None:
    await place.running()
    await place.delete(CONFIG, "default")


async def source_missing(place: Place) -> None:
    await place.config()
    await place.model()
    await place.template()
    await place.service(cacheModel=True)


async def source_appears(place: Place) -> None:
    await place.put_source()
    await place.retry(CACHE, names.cache_for(place.source))


async def cache_goes(place: Place) -> None:
    await service_with(cacheModel=True)(place)
    await place.until_reported(SERVICE, "s", reasons.READY, reasons.RUNNING)
    await place.edit(CONFIG, "default", {"spec": {"cacheStorageClassName": f"later-{place.name}"}})
    await place.delete(CACHE, names.cache_for(place.source))


async def cache_let_go(place: Place) -> None:
    """The running pods use the old volume until they are deleted."""
    await place.storage_class(f"later-{place.name}")
    await place.delete(INFERENCE_SERVICE, "s")


async def volume_awaited(place: Place) -> None:
    await place.config(cacheStorageClassName=await place.slow_class())
    await place.put_source()
    await place.model()
    await place.template()
    await place.service(cacheModel=True)


async def crashes(place: Place) -> None:
    await place.config()
    await place.model(None, "--crash")
    await place.template()
    await place.service()


async def crashes_later(place: Place) -> None:
    file = place.folder / f"{place.name}.alive"
    await asyncio.to_thread(file.touch)
    await place.config()
    await place.model(None, "--until", str(file))
    await place.template()
    await place.service()
    await place.until_reported(SERVICE, "s", reasons.READY, reasons.RUNNING)
    await place.image(None, "--crash")
    await asyncio.to_thread(file.unlink)


async def foreign(place: Place) -> None:
    """A foreign InferenceService and HTTPRoute with the same name."""
    container = {"name": "kserve-container", "image": await place.image()}
    await place.make(
        INFERENCE_SERVICE, "s", {"predictor": {"minReplicas": 1, "containers": [container]}}
    )
    await place.make(ROUTE, "s", {"parentRefs": [GATEWAY]})
    await service_with()(place)


async def foreign_goes(place: Place) -> None:
    await place.delete(INFERENCE_SERVICE, "s")
    await place.delete(ROUTE, "s")


async def one_workload_id(place: Place) -> None:
    """`s` is the younger; creation times count in seconds, then names do."""
    label = {"labels": {labels.WORKLOAD_ID: "chat"}}
    await place.config()
    await place.model()
    await place.template()
    await place.service("a", label)
    await place.service("s", label)


async def other_template(place: Place) -> None:
    await place.template("usual")
    await place.edit(SERVICE, "s", {"spec": {"templateRef": "usual"}})


def config_warned(*fragments: str) -> Expected:
    return Expected(CONFIG, "default", EVENT, reasons.ROUTE_FAILED, fragments)


async def routed_to_several_listeners(place: Place) -> None:
    """The config names a gateway with two listeners that take HTTPRoutes, and neither of them."""
    listeners = [
        {"name": "open", "protocol": "HTTP", "port": 80},
        {
            "name": "guarded",
            "protocol": "HTTPS",
            "port": 443,
            "tls": {"certificateRefs": [{"name": "tls"}]},
        },
        {"name": "other", "protocol": "TCP", "port": 9000},
    ]
    await place.make(GATEWAY_KIND, "wide", {"gatewayClassName": "unserved", "listeners": listeners})
    await place.config(routing={"gateway": {"name": "wide"}})


async def controller_insists(place: Place) -> None:
    """A foreign controller sets a field of the route again after each repair."""
    await place.running()
    rules = (await place.get(ROUTE, "s"))["spec"]["rules"]
    [backend] = rules[0]["backendRefs"]
    theirs = [{**rules[0], "backendRefs": [{**backend, "weight": 2}]}]
    for _ in range(IMMEDIATE_REPAIRS):
        await place.edit(ROUTE, "s", {"spec": {"rules": theirs}})
        await place.until(
            ROUTE, "s", lambda route: route["spec"]["rules"] == rules, "its rules back"
        )
    await place.edit(ROUTE, "s", {"spec": {"rules": theirs}})


CASES = (
    Case(
        "runs",
        "nothing",
        service_with(cacheModel=True),
        (
            RUNNING,
            *runtime(reasons.RUNTIME_READY),
            *routing(reasons.ROUTE_READY),
            *resolved(reasons.RESOLVED),
            *cached(reasons.CACHE_WARM_REASON),
        ),
    ),
    Case(
        "no-template",
        "the template does not exist",
        without_template,
        (*resolved(reasons.TEMPLATE_NOT_FOUND, "AIMServiceTemplate t"), *NO_ROUTE),
        lambda p: p.template(),
        RUNNING,
    ),
    Case(
        "modelless",
        "no catalogue entry has the service's model",
        without_model,
        resolved(reasons.MODEL_NOT_FOUND, "modelless:1"),
        lambda p: p.model(),
        RUNNING,
    ),
    Case(
        "other-model",
        "the template is for another model",
        template_for_another_model,
        resolved(reasons.VALIDATION_FAILED, "another:1"),
        lambda p: p.edit(SERVICE, "s", {"spec": {"templateRef": "right"}}),
        RUNNING,
    ),
    Case(
        "undiscovered",
        "the template is not discovered yet",
        template_waits,
        resolved(reasons.TEMPLATE_NOT_READY, "template t"),
        template_answers,
        RUNNING,
    ),
    Case(
        "no-config",
        "the config does not exist",
        service_with(configRef="team"),
        resolved(reasons.RUNTIME_CONFIG_MISSING, "team"),
        lambda p: p.config("team"),
        RUNNING,
    ),
    Case(
        "unknown-gpu",
        "the GPU model is not in the table",
        service_with(template={"gpuModel": "Voodoo2"}),
        (*resolved(reasons.UNKNOWN_GPU, "Voodoo2", "AIM_GPU_TABLE"), *NO_BACKEND),
        other_template,
        RUNNING,
    ),
    Case(
        "template-goes",
        "the template is deleted under a running service",
        template_goes,
        resolved(reasons.TEMPLATE_NOT_FOUND, "t"),
        lambda p: p.template(),
        RUNNING,
    ),
    Case(
        "config-goes",
        "the config is deleted under a running service",
        config_goes,
        routing(reasons.ROUTE_FAILED, "default was deleted"),
        lambda p: p.config(),
        RUNNING,
    ),
    Case(
        "no-source",
        "the source of its cache is missing",
        source_missing,
        cached(reasons.CACHE_FAILED, "failed"),
        source_appears,
        RUNNING,
    ),
    Case(
        "cache-goes",
        "its cache is deleted while it runs",
        cache_goes,
        cached(reasons.CACHE_LOST),
        cache_let_go,
        RUNNING,
    ),
    Case(
        "volumeless",
        "its cache has no volume yet",
        volume_awaited,
        cached(reasons.CACHE_WARMING, "0 %"),
        Place.volume_arrives,
        RUNNING,
    ),
    Case(
        "uncached",
        "no cache is requested",
        service_with(),
        (*cached(reasons.CACHE_NOT_REQUESTED), RUNNING),
    ),
    Case(
        "stopped",
        "replicas is 0",
        service_with(replicas=0),
        runtime(reasons.STOPPED),
        lambda p: p.edit(SERVICE, "s", {"spec": {"replicas": 1}}),
        RUNNING,
    ),
    Case(
        "crashes",
        "the model server crashes",
        crashes,
        runtime(reasons.RUNTIME_FAILED, "ended with exit code"),
        lambda p: p.image(),
        RUNNING,
    ),
    Case(
        "crashes-later",
        "the model server crashes after it was ready",
        crashes_later,
        runtime(reasons.RUNTIME_FAILED),
        lambda p: p.image(),
        RUNNING,
    ),
    Case(
        "too-many-gpus",
        "no node has that many GPUs",
        service_with(template={"gpusPerReplica": 16}),
        runtime(reasons.RUNTIME_FAILED, "cannot be scheduled"),
        other_template,
        RUNNING,
    ),
    Case(
        "foreign",
        "foreign objects have the service's name",
        foreign,
        (
            *runtime(reasons.NAME_CONFLICT, "InferenceService s"),
            *routing(reasons.NAME_CONFLICT, "HTTPRoute s"),
        ),
        foreign_goes,
        RUNNING,
    ),
    Case(
        "unrouted",
        "the config has no routing",
        configured(routing=None),
        (*routing(reasons.ROUTING_DISABLED), RUNNING),
    ),
    Case(
        "no-gateway",
        "routing names no gateway",
        configured(routing={"autoCreateRoute": True}),
        (
            *routing(reasons.ROUTE_FAILED, "spec.routing.gateway"),
            config_warned("spec.routing.gateway"),
        ),
        config_becomes(routing={"gateway": GATEWAY}),
        RUNNING,
    ),
    Case(
        "absent-gateway",
        "the gateway does not exist",
        configured(routing={"gateway": {"name": "nowhere", "namespace": SYSTEM_NAMESPACE}}),
        (
            *routing(reasons.ROUTE_FAILED, "Gateway aim-system/nowhere does not exist"),
            config_warned("Gateway aim-system/nowhere"),
        ),
        config_becomes(routing={"gateway": GATEWAY}),
        RUNNING,
    ),
    Case(
        "refusing-gateway",
        "the gateway has no such listener",
        configured(routing={"gateway": GATEWAY | {"sectionName": "none"}}),
        routing(reasons.ROUTE_FAILED, "NoMatchingParent"),
        config_becomes(routing={"gateway": {"sectionName": None}}),
        RUNNING,
    ),
    Case(
        "several-listeners",
        "the config names no listener of a gateway that has several",
        routed_to_several_listeners,
        (
            Expected(
                CONFIG,
                "default",
                EVENT,
                reasons.SEVERAL_LISTENERS,
                ("open (HTTP 80), guarded (HTTPS 443)", "sectionName"),
            ),
        ),
    ),
    Case(
        "bad-timeout",
        "the route's timeout is malformed",
        service_with(metadata={"annotations": {labels.ANNOTATION_ROUTE_TIMEOUT: "soon"}}),
        routing(reasons.ROUTE_FAILED, labels.ANNOTATION_ROUTE_TIMEOUT, "soon"),
        lambda p: p.edit(
            SERVICE, "s", {"metadata": {"annotations": {labels.ANNOTATION_ROUTE_TIMEOUT: "30s"}}}
        ),
        RUNNING,
    ),
    Case(
        "contested",
        "another manager keeps changing the route",
        controller_insists,
        (
            *routing(reasons.ROUTE_READY, "keeps being changed"),
            Expected(SERVICE, "s", EVENT, reasons.CONTESTED, ("spec.rules", "HTTPRoute s")),
        ),
    ),
    Case(
        "one-workload-id",
        "two services have the same workload id",
        one_workload_id,
        routing(reasons.ROUTE_FAILED, "service a is older"),
        lambda p: p.delete(SERVICE, "a"),
        RUNNING,
    ),
)
