"""Faults of images and of the catalogue, reported on the entry. Those of private registries are in
tests/scenario/test_catalogue.py."""

from aim_testing.fault_catalogue.case import Case, Expected, Step
from aim_testing.fault_catalogue.place import Place
from aimlab.sources.registry import Failure
from aimschema import reasons
from aimschema.resources import MODEL

LABELS = {"com.amd.aim.model.canonicalName": "org/model"}


def entry(
    name: str, fault: str, cause: Step, expected: tuple[str, *tuple[str, ...]], heal: Step
) -> Case:
    """`expected`: reason and words. The catalogue's entry has the case's name."""
    reason, *fragments = expected
    expectation = Expected(MODEL, name, reasons.IMAGE_INSPECTED, reason, tuple(fragments))
    return Case(
        name,
        fault,
        cause,
        (expectation,),
        heal,
        Expected(MODEL, name, reasons.READY, reasons.INSPECTED),
    )


async def catalogued(place: Place) -> None:
    registry = await place.registry()
    await place.make(
        MODEL, place.name, {"name": place.model_name, "image": f"{registry.host}/org/image:1"}
    )


async def image_appears(place: Place) -> None:
    (await place.registry()).put_image("org/image", "1", LABELS)
    await place.retry(MODEL, place.name)


async def without_labels(place: Place) -> None:
    (await place.registry()).put_image("org/image", "1", {})
    await catalogued(place)


async def registry_away(place: Place) -> None:
    (await place.registry()).put_image("org/image", "1", LABELS)
    await (await place.registry()).stop()
    await catalogued(place)


async def registry_back(place: Place) -> None:
    """Found by itself, some seconds later."""
    await (await place.registry()).start()


async def registry_slow(place: Place) -> None:
    registry = await place.registry()
    registry.put_image("org/image", "1", LABELS)
    registry.failure = Failure(delay_s=6.0)
    await catalogued(place)


async def registry_quick(place: Place) -> None:
    (await place.registry()).failure = None


async def same_name(place: Place) -> None:
    """The case's entry is the younger; creation times count in seconds, then names do."""
    await image_of(place)
    await place.make(
        MODEL, f"a-{place.name}", {"name": place.model_name, "image": "127.0.0.1:9/older:1"}
    )
    await catalogued(place)


async def image_of(place: Place) -> None:
    (await place.registry()).put_image("org/image", "1", LABELS)


CASES = (
    entry(
        "no-tag",
        "the registry has no such image",
        catalogued,
        (reasons.IMAGE_NOT_FOUND, "try 1, next at", "org/image"),
        image_appears,
    ),
    entry(
        "unlabelled",
        "the image has no labels",
        without_labels,
        (reasons.METADATA_MISSING, "try 1"),
        image_appears,
    ),
    entry(
        "registry-away",
        "the registry cannot be reached",
        registry_away,
        (reasons.REGISTRY_UNREACHABLE, "try 1"),
        registry_back,
    ),
    entry(
        "registry-slow",
        "the registry is slow",
        registry_slow,
        (reasons.NOT_INSPECTED,),
        registry_quick,
    ),
    entry(
        "one-name",
        "two catalogue entries have the same spec.name",
        same_name,
        (reasons.DUPLICATE_NAME, "a-one-name is older"),
        lambda place: place.delete(MODEL, f"a-{place.name}"),
    ),
)
