"""Look-ups that several services must answer alike: which of several objects counts, and what
discovery has found. Pure."""

from collections.abc import Iterable

from aimcontroller.indexes import (
    ANSWERS_BY_SOURCE,
    CACHES_BY_SOURCE,
    MODELS_BY_NAME,
    TEMPLATES_BY_SOURCE,
)
from aimcontroller.projection import KubeObject, Projection
from aimschema.discovery_result import Discovered, from_config_map, recorded_images
from aimschema.names import discovery_config_map, image_config_map
from aimschema.reasons import DUPLICATE_SOURCE, FAILED_STATE, QUOTA_EXCEEDED, READY
from aimschema.resources import CONFIG_MAP, TEMPLATE, Key


def oldest_first(found: Iterable[KubeObject]) -> list[KubeObject]:
    """Where several objects claim the same thing the oldest has it, of equal age the first by
    name; those being deleted claim nothing."""
    return sorted(
        (obj for obj in found if not obj.deleting),
        key=lambda obj: (obj.creation_timestamp, obj.key.name),
    )


def models_named(state: Projection, name: str) -> list[KubeObject]:
    """Catalogue entries of one canonical name; the first is the one that counts."""
    return oldest_first(state.find(MODELS_BY_NAME, name))


def image_record(state: Projection, model: KubeObject, namespace: str) -> KubeObject | None:
    """The ConfigMap that has the images of a catalogue entry and the labels of the present one.
    `namespace`: the control plane's own."""
    config_map = state.get(Key(CONFIG_MAP.kind, namespace, image_config_map(model.key.name)))
    return (
        config_map
        if config_map is not None
        and model.uid in config_map.owners
        and isinstance(config_map.body.get("data"), dict)
        else None
    )


def known_images(state: Projection, name: str, namespace: str) -> frozenset[str]:
    """Images that the catalogue has or had for a canonical name.

    A stored result with another image was forged: a user who may write ConfigMaps of a
    namespace can do that.
    """
    models = models_named(state, name)
    records = (image_record(state, model, namespace) for model in models)
    recorded = (
        image
        for record in records
        if record is not None
        for image in recorded_images(record.body["data"])
    )
    return frozenset(recorded) | {str(model.spec.get("image")) for model in models}


def caches_of(state: Projection, namespace: str | None, source_uri: str) -> list[KubeObject]:
    """Caches of one source in a namespace; the first is the one that counts."""
    return oldest_first(state.find(CACHES_BY_SOURCE, source_uri, namespace))


def has_failed(cache: KubeObject) -> bool:
    """Of the first cache of a source. That there was an older one is void once it is the first.
    One that gets no storage has failed as well, though its state is Pending."""
    reason = (cache.condition(READY) or {}).get("reason")
    if reason == QUOTA_EXCEEDED:
        return True
    return cache.status.get("status") == FAILED_STATE and reason != DUPLICATE_SOURCE


def previous_discovery(state: Projection, template: KubeObject) -> KubeObject | None:
    """The ConfigMap in which discovery keeps what a template's image answered."""
    config_map = state.get(
        Key(CONFIG_MAP.kind, template.key.namespace, discovery_config_map(template.key.name))
    )
    return config_map if config_map is not None and template.uid in config_map.owners else None


def discovery_result_of(state: Projection, template: KubeObject) -> Discovered | None:
    """What a template's image answered."""
    config_map = previous_discovery(state, template)
    return None if config_map is None else config_map.body_as(from_config_map)


def templates_of(state: Projection, namespace: str | None, source: str) -> list[KubeObject]:
    """Templates whose image names this source. While an image is asked again, its last answer
    still counts; without one, what the status says."""
    found: dict[Key, KubeObject] = {}
    for config_map in state.find(ANSWERS_BY_SOURCE, source, namespace):
        owner = config_map.owner(TEMPLATE.kind)
        template = None if owner is None else state.get(owner)
        if template is not None and previous_discovery(state, template) is config_map:
            found[template.key] = template
    for template in state.find(TEMPLATES_BY_SOURCE, source, namespace):
        if template.key not in found and discovery_result_of(state, template) is None:
            found[template.key] = template
    return list(found.values())
