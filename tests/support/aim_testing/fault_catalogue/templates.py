"""Faults of discovery, reported on the template."""

import json

from aim_testing.fault_catalogue.case import Case, Expected
from aim_testing.fault_catalogue.place import Place
from aimlab.kinds import RESOURCE_QUOTA
from aimschema import names, reasons
from aimschema.resources import CACHE, CONFIG_MAP, MODEL, SERVICE, TEMPLATE

FOUND = Expected(TEMPLATE, "t", reasons.DISCOVERED, reasons.PROFILES_DISCOVERED)


def discovered(reason: str, *fragments: str) -> tuple[Expected, ...]:
    return (Expected(TEMPLATE, "t", reasons.DISCOVERED, reason, fragments),)


def answering(
    name: str, fault: str, answer: str, fragments: str, *options: str, by_itself: bool = False
) -> Case:
    """The image prints invalid output; it is then corrected and queried again: by backoff, or at
    once by annotation."""

    async def cause(place: Place) -> None:
        await place.config()
        await place.model(answer, *options)
        await place.template()

    async def heal(place: Place) -> None:
        await place.image()
        if not by_itself:
            await place.retry(TEMPLATE, "t")

    return Case(
        name,
        fault,
        cause,
        discovered(reasons.DISCOVERY_FAILED, "try 1, next at", fragments),
        heal,
        FOUND,
    )


async def template_alone(place: Place) -> None:
    await place.config()
    await place.put_source()
    await place.template(warmCache=True)


async def image_missing(place: Place) -> None:
    await place.config()
    await place.make(
        MODEL,
        place.name,
        {"name": place.model_name, "image": f"registry.lab.local/faults/{place.name}:1"},
    )
    await place.template()


async def config_map_of_another_owner(place: Place) -> None:
    await place.config()
    await place.model()
    await place.make(CONFIG_MAP, names.discovery_config_map("t"))
    await place.template()


async def source_missing(place: Place) -> None:
    await place.config()
    await place.model()
    await place.template(warmCache=True)


async def source_appears(place: Place) -> None:
    await place.put_source()
    await place.retry(CACHE, names.cache_for(place.source))


async def volume_awaited(place: Place) -> None:
    await place.config(cacheStorageClassName=await place.slow_class())
    await place.put_source()
    await place.model()
    await place.template(warmCache=True)


async def no_pods_allowed(place: Place) -> None:
    await place.config()
    await place.put_source()
    await place.model()
    await place.make(RESOURCE_QUOTA, "no-pods", {"hard": {"pods": "0"}})
    await place.template()
    await place.cache(size="1Gi")


async def model_goes(place: Place) -> None:
    await place.running()
    await place.delete(MODEL, place.name)


async def model_returns(place: Place) -> None:
    await place.model()


def sources(*uris: str) -> str:
    return json.dumps([{"models": [{"name": "m", "source": uri} for uri in uris]}])


CASES = (
    Case(
        "no-model",
        "no catalogue entry has the template's model",
        template_alone,
        (
            *discovered(reasons.MODEL_NOT_FOUND, "no-model:1"),
            Expected(TEMPLATE, "t", reasons.CACHE_WARM, reasons.WARM_REQUESTED),
        ),
        lambda place: place.model(),
        Expected(TEMPLATE, "t", reasons.CACHE_WARM, reasons.WARM),
    ),
    answering(
        "output-noise",
        "the image prints noise",
        "Traceback: no such module\n",
        "no JSON array",
        by_itself=True,
    ),
    answering("output-empty", "the image prints nothing", "", "(empty)"),
    answering("empty-list", "the image has no profile", "[]", "empty list"),
    answering(
        "output-broken",
        "the image prints broken JSON",
        '[{"models": [{"name": "m", "sou',
        "no JSON array",
    ),
    answering("output-too-large", "the image prints 5 MiB", "x" * (5 << 20), "longer than 4 MiB"),
    answering(
        "source-with-dots",
        "a source has .. in its path",
        sources("s3://bucket/../org/model"),
        "not of the form",
    ),
    answering(
        "exits", "the image ends with an error", "no GPU driver\n", "exit code 7", "--exit", "7"
    ),
    Case(
        "unpulled",
        "the image cannot be pulled",
        image_missing,
        discovered(reasons.AWAITING_DISCOVERY, "ImagePull"),
        lambda place: place.image(),
        FOUND,
    ),
    Case(
        "taken-name",
        "a foreign ConfigMap has the name",
        config_map_of_another_owner,
        discovered(reasons.NAME_CONFLICT, "t-discovery"),
        lambda place: place.delete(CONFIG_MAP, names.discovery_config_map("t")),
        FOUND,
    ),
    Case(
        "warm-source-missing",
        "the source of a warm cache is missing",
        source_missing,
        (Expected(TEMPLATE, "t", reasons.CACHE_WARM, reasons.WARM_FAILED, ("failed",)),),
        source_appears,
        Expected(TEMPLATE, "t", reasons.CACHE_WARM, reasons.WARM),
    ),
    Case(
        "warm-volume-pending",
        "the volume of a warm cache is pending",
        volume_awaited,
        (Expected(TEMPLATE, "t", reasons.CACHE_WARM, reasons.WARMING),),
        Place.volume_arrives,
        Expected(TEMPLATE, "t", reasons.CACHE_WARM, reasons.WARM),
    ),
    Case(
        "quota-exceeded",
        "a quota rejects the pods of the Jobs",
        no_pods_allowed,
        (
            *discovered(reasons.AWAITING_DISCOVERY, "Job discover-t-", "has no pod", "quota"),
            Expected(
                CACHE,
                "c",
                reasons.FILLED,
                reasons.DOWNLOADING,
                ("Job c-download has no pod", "quota"),
            ),
        ),
        lambda place: place.delete(RESOURCE_QUOTA, "no-pods"),
        Expected(CACHE, "c", reasons.FILLED, reasons.WARM),
    ),
    Case(
        "model-goes",
        "the model is deleted under a running service",
        model_goes,
        (Expected(SERVICE, "s", reasons.RESOLVED, reasons.MODEL_NOT_FOUND, ("model-goes:1",)),),
        model_returns,
        Expected(SERVICE, "s", reasons.READY, reasons.RUNNING),
    ),
)
