"""Templates by the model image that last answered them, in an order. `fold` maintains it, so that
the templates without an answer are found without a scan of all.

1. The place of a template depends on the template, the ConfigMap of its answer, the last report on
   it, and on whether the API server rejects what is applied for it. It does not depend on its
   model: a changed image moves no template.
2. A template that is being deleted, or that has a rejection, has no place.
3. Places are computed for any content, also for invalid content.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from immutables import Map
from msgspec.structs import replace

from aimcontroller import ordered
from aimcontroller.indexes import value_at
from aimcontroller.ordered import Entry, Ordered
from aimschema.discovery_result import IMAGE_KEY
from aimschema.messages import StatusReported, parse_timestamp, timestamp
from aimschema.reasons import AWAITING_DISCOVERY, DISCOVERED, STATUS_OWNERSHIP
from aimschema.resources import TEMPLATE, Key

REPORTER: Final = next(
    service
    for service, (conditions, _) in STATUS_OWNERSHIP[TEMPLATE.kind].items()
    if DISCOVERED in conditions
)
"""The component that reports Discovered."""
NO_IMAGE: Final = "\0"
ASKING: Final = "\0asking"
"""In the place of an image: nothing answered; the template asks for its turn. No image has these
names."""
_DUE: Final = "nextAttemptTime"
_ByImage: TypeAlias = Map[str, Map[str, Ordered]]
_Change: TypeAlias = Callable[[Ordered, Entry], Ordered]
_NO_IMAGES: Map[str, Ordered] = Map()
_NO_KEYS: Map[Key, None] = Map()


class Place(NamedTuple):
    """`image` gave the answer of a template of `model`. `due`: RFC 3339, when it is tried again
    after a failure; None: it has not failed.

    `entry` is its place among those of the same model and image: by namespace, then the oldest
    first; after a failure by `due`.
    """

    model: str
    image: str
    due: str | None
    entry: Entry


class Unanswered(msgspec.Struct, frozen=True):
    """The places of all templates."""

    _places: Map[Key, Place] = msgspec.field(default_factory=Map)
    _first: _ByImage = msgspec.field(default_factory=Map)
    """By model and image, those that have not failed."""
    _again: _ByImage = msgspec.field(default_factory=Map)
    _asking: Map[str, Map[Key, None]] = msgspec.field(default_factory=Map)
    """By model, the templates that ask for their turn."""

    def __len__(self) -> int:
        return len(self._places)

    def with_place(self, template: Key, place: Place | None) -> "Unanswered":
        before = self._places.get(template)
        if before == place:
            return self
        changed = self
        if before is not None:
            changed = changed._with(before, ordered.without_entry)._asks(template, before, None)
        if place is not None:
            changed = changed._with(place, ordered.with_entry)._asks(template, None, place)
        places = self._places
        places = places.delete(template) if place is None else places.set(template, place)
        return replace(changed, _places=places)

    @property
    def models_asked(self) -> Iterator[str]:
        """Names of the models whose templates ask for their turn."""
        return iter(self._asking)

    def first(self, model: str, image: object) -> list[Ordered]:
        """Templates of a model that have no answer of this image and have not failed, by
        namespace: (namespace, creation, name). `image` None, of a model that does not exist:
        those that ask for their turn."""
        return _of_other_images(self._first, model, image)

    def again(self, model: str, image: object) -> list[Ordered]:
        """The same of those that failed, by time: (due, namespace, name)."""
        return _of_other_images(self._again, model, image)

    def _with(self, place: Place, change: _Change) -> "Unanswered":
        if place.due is None:
            return replace(self, _first=_change_entries(self._first, place, change))
        return replace(self, _again=_change_entries(self._again, place, change))

    def _asks(self, template: Key, before: Place | None, after: Place | None) -> "Unanswered":
        asking = self._asking
        if before is not None and before.image == ASKING:
            left = asking[before.model].delete(template)
            asking = asking.set(before.model, left) if left else asking.delete(before.model)
        if after is not None and after.image == ASKING:
            keys = asking.get(after.model, _NO_KEYS)
            asking = asking.set(after.model, keys.set(template, None))
        return self if asking is self._asking else replace(self, _asking=asking)


def place_of(
    body: dict[str, Any], answer: dict[str, Any] | None, report: StatusReported | None
) -> Place | None:
    """The place of the template with this body. `answer`: the body of the ConfigMap that it owns;
    `report`: the last one of REPORTER."""
    metadata = body["metadata"]
    if "deletionTimestamp" in metadata:
        return None
    due = _due(value_at(body, "status", _DUE) if report is None else report.fields.get(_DUE))
    namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name"))
    created = str(metadata.get("creationTimestamp", ""))
    return Place(
        str(value_at(body, "spec", "model")),
        ASKING if _is_asking(report) else _image_of(answer),
        due,
        (namespace, created, name) if due is None else (due, namespace, name),
    )


def _image_of(answer: dict[str, Any] | None) -> str:
    image = value_at(answer, "data", IMAGE_KEY)
    return image if isinstance(image, str) else NO_IMAGE


def _is_asking(report: StatusReported | None) -> bool:
    return report is not None and any(
        each.type == DISCOVERED and each.status == "False" and each.reason == AWAITING_DISCOVERY
        for each in report.conditions
    )


def _due(text: object) -> str | None:
    """As it sorts. What is no time is long past."""
    if text is None:
        return None
    try:
        moment = parse_timestamp(str(text))
    except ValueError:
        return ""
    return "" if moment.tzinfo is None else timestamp(moment)


def _change_entries(by_image: _ByImage, place: Place, change: _Change) -> _ByImage:
    images = by_image.get(place.model, _NO_IMAGES)
    entries = change(images.get(place.image, ordered.EMPTY), place.entry)
    images = images.set(place.image, entries) if entries else images.delete(place.image)
    return by_image.set(place.model, images) if images else by_image.delete(place.model)


def _of_other_images(by_image: _ByImage, model: str, image: object) -> list[Ordered]:
    images = by_image.get(model, _NO_IMAGES)
    if image is None:
        return [images[ASKING]] if ASKING in images else []
    return [entries for had, entries in images.items() if had != image]
