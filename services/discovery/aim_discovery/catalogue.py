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
from msgspec import structs

from aim_discovery.actions import InspectImage
from aim_discovery.image_labels import Deployment, ImageLabels
from aimcontroller.action import ApplyObject
from aimcontroller.plan import (
    EMPTY_PLAN,
    Plan,
    actions,
    condition,
    existing_condition,
    report,
    requeue_after,
)
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
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


def plan_model(
    state: Projection, model: KubeObject, now: datetime.datetime, namespace: str
) -> Plan:
    """First match wins: another entry has the name, known, never looked at, found, failed."""
    first = models_named(state, str(model.spec["name"]))[0]
    if first.key != model.key:
        other = (
            f"AIMClusterModel {first.key.name} is older and has the same spec.name"
            f" {model.spec['name']}; rename or delete one of them"
        )
        return report(
            model, condition(reasons.IMAGE_INSPECTED, False, reasons.DUPLICATE_NAME, other)
        )
    image = str(model.spec["image"])
    secrets = secrets_of(state, namespace)
    inputs = names.short_hash([image, *secrets, model.annotations.get(labels.ANNOTATION_RETRY, "")])
    record = image_record(state, model, namespace)
    inspection = _last_inspection(state, model)
    if (
        record is not None
        and record.annotations.get(labels.ANNOTATION_INPUTS) == inputs
        and (found := _decoded(record)) is not None
    ):
        return report(model, _inspected(found, str(record.body["data"].get(DIGEST_KEY, ""))))
    if inspection is None or inspection.inputs != inputs:
        inspects = actions(InspectImage(model.key, image, secrets, inputs, 1)) | _record(
            model, record, "" if inspection is None else inspection.image, namespace
        )
        return inspects | report(model, _current_condition(model))
    if inspection.found is not None:
        stores = actions(
            ApplyObject(
                _config_map(
                    model, _labels_data(inspection), inspection.inputs, _recorded(record), namespace
                )
            )
        )
        return stores | report(
            model, _inspected(inspection.found, inspection.digest, _storage_problem(state, model))
        )
    message = (
        f"try {inspection.attempt}, next at {timestamp(inspection.due)}:"
        f" {inspection.message}{inspection.way_out or WAYS_OUT.get(inspection.reason, '')}"
    )
    failed = structs.replace(
        condition(reasons.IMAGE_INSPECTED, False, inspection.reason, message),
        attempt=inspection.attempt,
        next_attempt_time=timestamp(inspection.due),
    )
    reported = report(model, failed)
    if now < inspection.due:
        return reported | requeue_after((inspection.due - now).total_seconds())
    return reported | actions(
        InspectImage(model.key, image, secrets, inputs, inspection.attempt + 1)
    )


def missing_image(state: Projection, model: KubeObject) -> str:
    """Why no template of this entry may begin a discovery; empty where one may. What is not
    known stops nothing."""
    image = str(model.spec["image"])
    inspection = _last_inspection(state, model)
    reported = model.condition(reasons.IMAGE_INSPECTED) or {}
    on_object = (
        reported.get("reason") == reasons.IMAGE_NOT_FOUND
        and reported.get("observedGeneration") == model.generation
    )
    known = (
        on_object
        if inspection is None
        else inspection.image == image and inspection.reason == reasons.IMAGE_NOT_FOUND
    )
    if not known:
        return ""
    return (
        f"image {image} of AIMClusterModel {model.key.name} is not found in its registry: push it,"
        " or correct spec.image; discovery goes on then"
    )


def unsupported(state: Projection, model: KubeObject, spec: TemplateSpec, namespace: str) -> str:
    """That none of the deployments that the image recommends is this template's; empty where one
    is, or nothing is known."""
    record = image_record(state, model, namespace)
    if (
        record is None
        or record.body["data"].get(IMAGE_KEY) != model.spec["image"]
        or (found := _decoded(record)) is None
        or not found.recommended
    ):
        return ""
    requested = Deployment(spec.gpu_model, spec.gpus_per_replica, spec.precision, spec.metric)
    if any(each.supports(requested) for each in found.recommended):
        return ""
    return (
        f"the image recommends no deployment like {requested}, but {_listed(found.recommended)}"[
            :320
        ]
        + UNSUPPORTED_WAY_OUT
    )


def secrets_of(state: Projection, namespace: str) -> tuple[str, ...]:
    """Names of the pull secrets for registries: those of the config `default` in the control
    plane's namespace."""
    config = state.get(Key(CONFIG.kind, namespace, DEFAULT_CONFIG))
    return tuple(
        each["name"]
        for each in pull_secrets(None if config is None else ConfigSpec.model_validate(config.spec))
    )


def _last_inspection(state: Projection, model: KubeObject) -> Inspection | None:
    found: Inspection | None = state.learned(model.key, INSPECTION)
    return found


def _current_condition(model: KubeObject) -> ReportedCondition:
    """What was last said of the image as it is now."""
    existing = model.condition(reasons.IMAGE_INSPECTED) or {}
    current = existing.get("observedGeneration") == model.generation and existing.get(
        "reason"
    ) not in {
        None,
        reasons.DUPLICATE_NAME,
    }
    reported = existing_condition(model, reasons.IMAGE_INSPECTED) if current else None
    return reported or condition(
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
    message = f"{what + ': ' if what else ''}the image {recommends}{token} ({digest}){trouble}"
    return condition(reasons.IMAGE_INSPECTED, True, reasons.INSPECTED, message)


def _storage_problem(state: Projection, model: KubeObject) -> str:
    """What was found cannot be kept: it is said, since no template is warned then."""
    rejection: ApplyRejected | None = state.learned(model.key, REJECTED)
    return (
        ""
        if rejection is None
        else (
            f"; this cannot be kept: {rejection.target.kind} {rejection.target.name} is refused:"
            f" {rejection.message}"
        )
    )


def _listed(recommended: Sequence[Deployment]) -> str:
    """Each different one once."""
    different = list(dict.fromkeys(map(str, recommended)))
    more = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    return ", ".join(different[:MOST_NAMED]) + more


def _decoded(record: KubeObject) -> ImageLabels | None:
    try:
        return msgspec.json.decode(record.body["data"].get(LABELS_KEY, ""), type=ImageLabels)
    except msgspec.DecodeError:
        return None


def _record(model: KubeObject, record: KubeObject | None, former: str, namespace: str) -> Plan:
    """Record the image before a change, also where it could not be inspected: what it answered
    counts until the new one has."""
    images = _recorded(record)
    if former in {"", str(model.spec["image"]), *images}:
        return EMPTY_PLAN
    inputs = None if record is None else record.annotations.get(labels.ANNOTATION_INPUTS)
    data = {} if record is None else record.body["data"]
    return actions(
        ApplyObject(_config_map(model, data, inputs, with_image(images, former), namespace))
    )


def _labels_data(inspection: Inspection) -> dict[str, str]:
    return {
        IMAGE_KEY: inspection.image,
        DIGEST_KEY: inspection.digest,
        LABELS_KEY: msgspec.json.encode(inspection.found, order="deterministic").decode(),
    }


def _recorded(record: KubeObject | None) -> list[str]:
    return [] if record is None else recorded_images(record.body["data"])


def _config_map(
    model: KubeObject, data: dict[str, str], inputs: str | None, images: list[str], namespace: str
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
