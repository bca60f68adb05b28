"""Decide the next step for a catalogue entry: look at its image's labels, keep them, say what was
found. Pure and total; `now` is aware UTC.

1. What an image's labels say is kept in a ConfigMap of the control plane's namespace, owned by the
   entry, with the inputs it was found with; for the same inputs the registry is never asked again.
2. Every failure is tried again: an image that is not there every ten minutes, anything else with
   backoff. Counting begins anew with the process and with other inputs.
3. Until a new look has succeeded or failed, what was last said of the same image stays said.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from aim_discovery.image_labels import Deployment, ImageLabels
from aimcontroller.plan import (
    NOTHING,
    ApplyObject,
    InspectImage,
    Plan,
    act,
    condition,
    look_again,
    repeated,
    report,
)
from aimcontroller.projection import REFUSED, Projection, Refusal, Seen
from aimcontroller.queries import image_record, models_named
from aimschema import labels, names, reasons
from aimschema.credentials import DEFAULT_CONFIG, pull_secrets
from aimschema.discovery_result import IMAGE_KEY, IMAGES_KEY, recorded_images, with_image
from aimschema.kinds import ConfigSpec, TemplateSpec
from aimschema.messages import ReportedCondition, timestamp
from aimschema.resources import CONFIG, CONFIG_MAP, Key

INSPECTION = "inspection"
"""Topic, of a model: how the last look at its image ended (an Inspection)."""
LABELS_KEY = "labels.json"
DIGEST_KEY = "digest"
NOT_FOUND_AGAIN_S = 600.0
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0
WAYS_OUT = {
    reasons.IMAGE_NOT_FOUND: "; push it, or correct spec.image",
    reasons.REGISTRY_UNREACHABLE: (
        "; see whether the registry is up and can be reached from the control plane"
    ),
    reasons.METADATA_MISSING: "; label the image, or do without: discovery asks it all the same",
}
"""What a person can do, by reason; for AuthError the inspection says it, since it knows the
credentials."""
UNSUPPORTED_WAY_OUT = (
    "; make the template anew for one of these, or leave it: discovery shows whether it runs all"
    " the same"
)
MOST_NAMED = 8
"""Recommended deployments that are written out in a message."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """How a look at an image ended: `found` with `digest`, or `reason` and `message`;
    `retry_after_s` is what the registry asked for.

    `way_out`: what a person can do, where it is not what WAYS_OUT says for the reason.
    """

    image: str
    inputs: str
    attempt: int
    at: datetime.datetime
    found: ImageLabels | None = None
    digest: str = ""
    reason: str = ""
    message: str = ""
    retry_after_s: float = 0.0
    way_out: str = ""

    @property
    def due(self) -> datetime.datetime:
        """When to look again after a failure."""
        backoff_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(self.attempt - 1, 20))
        wait_s = (
            NOT_FOUND_AGAIN_S
            if self.reason == reasons.IMAGE_NOT_FOUND
            else max(backoff_s, self.retry_after_s)
        )
        return self.at + datetime.timedelta(seconds=wait_s)


def plan_model(seen: Projection, model: Seen, now: datetime.datetime, namespace: str) -> Plan:
    """First match wins: another entry has the name, known, never looked at, found, failed."""
    first = models_named(seen, str(model.spec["name"]))[0]
    if first.key != model.key:
        other = (
            f"AIMClusterModel {first.key.name} is older and has the same spec.name"
            f" {model.spec['name']}; rename or delete one of them"
        )
        return report(
            model, condition(reasons.IMAGE_INSPECTED, False, reasons.DUPLICATE_NAME, other)
        )
    image, secrets = str(model.spec["image"]), secrets_of(seen, namespace)
    inputs = names.short_hash([image, *secrets, model.annotations.get(labels.ANNOTATION_RETRY, "")])
    kept, fact = image_record(seen, model, namespace), _fact(seen, model)
    if (
        kept is not None
        and kept.annotations.get(labels.ANNOTATION_INPUTS) == inputs
        and (found := _decoded(kept)) is not None
    ):
        return report(model, _inspected(found, str(kept.body["data"].get(DIGEST_KEY, ""))))
    if fact is None or fact.inputs != inputs:
        asks = act(InspectImage(model.key, image, secrets, inputs, 1)) | _record(
            model, kept, "" if fact is None else fact.image, namespace
        )
        return asks | report(model, _standing(model))
    if fact.found is not None:
        keeps = act(
            ApplyObject(
                _config_map(model, _labels_data(fact), fact.inputs, _recorded(kept), namespace)
            )
        )
        return keeps | report(model, _inspected(fact.found, fact.digest, _unkept(seen, model)))
    words = (
        f"try {fact.attempt}, next at {timestamp(fact.due)}:"
        f" {fact.message}{fact.way_out or WAYS_OUT.get(fact.reason, '')}"
    )
    said = report(model, condition(reasons.IMAGE_INSPECTED, False, fact.reason, words))
    if now < fact.due:
        return said | look_again((fact.due - now).total_seconds())
    return said | act(InspectImage(model.key, image, secrets, inputs, fact.attempt + 1))


def missing_image(seen: Projection, model: Seen) -> str:
    """Why no template of this entry may begin a discovery; empty where one may. What is not
    known stops nothing."""
    image, fact, said = (
        str(model.spec["image"]),
        _fact(seen, model),
        model.condition(reasons.IMAGE_INSPECTED) or {},
    )
    on_object = (
        said.get("reason") == reasons.IMAGE_NOT_FOUND
        and said.get("observedGeneration") == model.generation
    )
    known = (
        on_object
        if fact is None
        else fact.image == image and fact.reason == reasons.IMAGE_NOT_FOUND
    )
    if not known:
        return ""
    return (
        f"image {image} of AIMClusterModel {model.key.name} is not found in its registry: push it,"
        " or correct spec.image; discovery goes on then"
    )


def unsupported(seen: Projection, model: Seen, spec: TemplateSpec, namespace: str) -> str:
    """That none of the deployments that the image recommends is this template's; empty where one
    is, or nothing is known."""
    kept = image_record(seen, model, namespace)
    if (
        kept is None
        or kept.body["data"].get(IMAGE_KEY) != model.spec["image"]
        or (found := _decoded(kept)) is None
        or not found.recommended
    ):
        return ""
    asked = Deployment(spec.gpu_model, spec.gpus_per_replica, spec.precision, spec.metric)
    if any(each.supports(asked) for each in found.recommended):
        return ""
    return (
        f"the image recommends no deployment like {asked}, but {_listed(found.recommended)}"[:320]
        + UNSUPPORTED_WAY_OUT
    )


def secrets_of(seen: Projection, namespace: str) -> tuple[str, ...]:
    """Names of the pull secrets for registries: those of the config `default` in the control
    plane's namespace."""
    config = seen.get(Key(CONFIG.kind, namespace, DEFAULT_CONFIG))
    return tuple(
        each["name"]
        for each in pull_secrets(None if config is None else ConfigSpec.model_validate(config.spec))
    )


def _fact(seen: Projection, model: Seen) -> Inspection | None:
    found: Inspection | None = seen.learned(model.key, INSPECTION)
    return found


def _standing(model: Seen) -> ReportedCondition:
    """What was last said of the image as it is now."""
    there = model.condition(reasons.IMAGE_INSPECTED) or {}
    current = there.get("observedGeneration") == model.generation and there.get("reason") not in {
        None,
        reasons.DUPLICATE_NAME,
    }
    said = repeated(model, reasons.IMAGE_INSPECTED) if current else None
    return said or condition(
        reasons.IMAGE_INSPECTED,
        None,
        reasons.NOT_INSPECTED,
        "the labels of the image are being read from its registry",
    )


def _inspected(found: ImageLabels, digest: str, trouble: str = "") -> ReportedCondition:
    what = found.title or found.canonical_name
    recommends = (
        f"recommends {_listed(found.recommended)}"
        if found.recommended
        else "recommends no deployments"
    )
    token = "; the model's source needs a Hugging Face token" if found.token_required else ""
    words = f"{what + ': ' if what else ''}the image {recommends}{token} ({digest}){trouble}"
    return condition(reasons.IMAGE_INSPECTED, True, reasons.INSPECTED, words)


def _unkept(seen: Projection, model: Seen) -> str:
    """What was found cannot be kept: it is said, since no template is warned then."""
    refusal: Refusal | None = seen.learned(model.key, REFUSED)
    return (
        ""
        if refusal is None
        else (
            f"; this cannot be kept: {refusal.target.kind} {refusal.target.name} is refused:"
            f" {refusal.message}"
        )
    )


def _listed(recommended: Sequence[Deployment]) -> str:
    """Each different one once."""
    different = list(dict.fromkeys(map(str, recommended)))
    more = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    return ", ".join(different[:MOST_NAMED]) + more


def _decoded(kept: Seen) -> ImageLabels | None:
    try:
        return msgspec.json.decode(kept.body["data"].get(LABELS_KEY, ""), type=ImageLabels)
    except msgspec.DecodeError:
        return None


def _record(model: Seen, kept: Seen | None, former: str, namespace: str) -> Plan:
    """Record the image before a change, also where it could not be inspected: what it answered
    counts until the new one has."""
    images = _recorded(kept)
    if former in {"", str(model.spec["image"]), *images}:
        return NOTHING
    inputs = None if kept is None else kept.annotations.get(labels.ANNOTATION_INPUTS)
    data = {} if kept is None else kept.body["data"]
    return act(ApplyObject(_config_map(model, data, inputs, with_image(images, former), namespace)))


def _labels_data(fact: Inspection) -> dict[str, str]:
    return {
        IMAGE_KEY: fact.image,
        DIGEST_KEY: fact.digest,
        LABELS_KEY: msgspec.json.encode(fact.found, order="deterministic").decode(),
    }


def _recorded(kept: Seen | None) -> list[str]:
    return [] if kept is None else recorded_images(kept.body["data"])


def _config_map(
    model: Seen, data: dict[str, str], inputs: str | None, images: list[str], namespace: str
) -> dict[str, object]:
    """`data`: the labels of an image, valid for `inputs`. `images`: those that the entry had."""
    had = with_image(images, str(model.spec["image"]))
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {
            "name": names.image_config_map(model.key.name),
            "namespace": namespace,
            "labels": labels.common_labels(
                labels.COMPONENT_DISCOVERY, model=str(model.spec["name"])
            ),
            "annotations": {} if inputs is None else {labels.ANNOTATION_INPUTS: inputs},
            "ownerReferences": [model.owner_reference()],
        },
        "data": (
            data
            if had == recorded_images(data)
            else data | {IMAGES_KEY: msgspec.json.encode(had).decode()}
        ),
    }
