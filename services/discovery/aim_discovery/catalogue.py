"""Decide the next step for a catalogue entry: inspect its image, record the labels, report them.
Pure and total; `now` is aware UTC.

1. The labels of an image are recorded in a ConfigMap of the control plane's namespace, owned by the
   entry, with the inputs of the inspection. For the same inputs no image is inspected again.
2. Every failure is retried: a missing image every ten minutes, anything else with backoff. Attempts
   count from one in a new process and for other inputs.
3. Until a new inspection ends, the previous condition of the same image is repeated.
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
from aimschema.credentials import pull_secrets
from aimschema.discovery_result import IMAGE_KEY, IMAGES_KEY, recorded_images, with_image
from aimschema.kinds import ConfigSpec, TemplateSpec
from aimschema.messages import ReportedCondition, timestamp
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import CONFIG, CONFIG_MAP, Key

INSPECTION = "inspection"
"""Topic, of a model: how the last inspection of its image ended (an Inspection)."""
LABELS_KEY = "labels.json"
DIGEST_KEY = "digest"
NOT_FOUND_AGAIN_S = 600.0
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0
WAYS_OUT = {
    reasons.IMAGE_NOT_FOUND: "; push it, or correct spec.image",
    reasons.REGISTRY_UNREACHABLE: (
        "; check that the registry is up and reachable from the control plane"
    ),
    reasons.METADATA_MISSING: "; label the image, or leave it: discovery runs without labels too",
}
"""What a user can do, by reason. For AuthError the inspection has it, since it knows the
credentials."""
UNSUPPORTED_WAY_OUT = (
    "; re-create the template for one of these, or leave it: discovery shows whether it runs"
)
MOST_NAMED = 8
"""Recommended deployments that are written out in a message."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """How an inspection ended: `found` with `digest`, or `reason` and `message`. `retry_after_s` is
    the wait that the registry requested.

    `way_out`: what a user can do; empty for what WAYS_OUT has for the reason.
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
        """When the next attempt is due after a failure."""
        backoff_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(self.attempt - 1, 20))
        wait_s = (
            NOT_FOUND_AGAIN_S
            if self.reason == reasons.IMAGE_NOT_FOUND
            else max(backoff_s, self.retry_after_s)
        )
        return self.at + datetime.timedelta(seconds=wait_s)


@dataclass(frozen=True, slots=True)
class ModelView:
    """One catalogue entry, its record, and the last inspection of its image.

    `inputs` stands for the image, the pull secrets and the requested retry. `namespace` is the
    control plane's own.
    """

    state: Projection
    model: KubeObject
    namespace: str
    now: datetime.datetime
    secrets: tuple[str, ...]
    record: KubeObject | None
    inspection: Inspection | None

    @classmethod
    def build(
        cls, state: Projection, model: KubeObject, now: datetime.datetime, namespace: str
    ) -> "ModelView":
        return cls(
            state=state,
            model=model,
            namespace=namespace,
            now=now,
            secrets=secrets_of(state, namespace),
            record=image_record(state, model, namespace),
            inspection=_last_inspection(state, model),
        )

    @property
    def image(self) -> str:
        return str(self.model.spec["image"])

    @property
    def inputs(self) -> str:
        retry = self.model.annotations.get(labels.ANNOTATION_RETRY, "")
        return names.short_hash([self.image, *self.secrets, retry])

    @property
    def older_entry(self) -> KubeObject | None:
        """The entry that has the name, if it is another one."""
        first = models_named(self.state, str(self.model.spec["name"]))[0]
        return None if first.key == self.model.key else first

    @property
    def recorded_labels(self) -> ImageLabels | None:
        """The labels in the record, if they are of the current inputs."""
        record = self.record
        if record is None or record.annotations.get(labels.ANNOTATION_INPUTS) != self.inputs:
            return None
        return _decode_labels(record)

    @property
    def current_inspection(self) -> Inspection | None:
        """The last inspection, if it had the current inputs."""
        inspection = self.inspection
        is_current = inspection is not None and inspection.inputs == self.inputs
        return inspection if is_current else None


def plan_model(
    state: Projection, model: KubeObject, now: datetime.datetime, namespace: str
) -> Plan:
    """First match wins."""
    view = ModelView.build(state, model, now, namespace)
    match view:
        case ModelView(older_entry=KubeObject() as older):
            return _report_duplicate(model, older)
        case ModelView(recorded_labels=ImageLabels() as found, record=KubeObject() as record):
            return report(
                model, _inspected_condition(found, str(record.body["data"].get(DIGEST_KEY, "")))
            )
        case ModelView(current_inspection=Inspection(found=ImageLabels() as found) as inspection):
            return _store_labels(view, inspection, found)
        case ModelView(current_inspection=Inspection() as inspection):
            return _retry(view, inspection)
        case _:
            return _inspect(view)


def _report_duplicate(model: KubeObject, older: KubeObject) -> Plan:
    message = (
        f"AIMClusterModel {older.key.name} is older and has the same spec.name"
        f" {model.spec['name']}; rename or delete one of them"
    )
    return report(model, condition(reasons.IMAGE_INSPECTED, False, reasons.DUPLICATE_NAME, message))


def _inspect(view: ModelView) -> Plan:
    """The first attempt with these inputs."""
    model = view.model
    former = "" if view.inspection is None else view.inspection.image
    return (
        actions(InspectImage(model.key, view.image, view.secrets, view.inputs, 1))
        | _record(model, view.record, former, view.namespace)
        | report(model, _current_condition(model))
    )


def _store_labels(view: ModelView, inspection: Inspection, found: ImageLabels) -> Plan:
    record = _config_map(
        view.model,
        _labels_data(inspection),
        inspection.inputs,
        _recorded_images(view.record),
        view.namespace,
    )
    problem = _storage_problem(view.state, view.model)
    inspected = _inspected_condition(found, inspection.digest, problem)
    return actions(ApplyObject(record)) | report(view.model, inspected)


def _retry(view: ModelView, inspection: Inspection) -> Plan:
    """Report a failed attempt, and start the next one when it is due."""
    message = (
        f"try {inspection.attempt}, next at {timestamp(inspection.due)}:"
        f" {inspection.message}{inspection.way_out or WAYS_OUT.get(inspection.reason, '')}"
    )
    failed = structs.replace(
        condition(reasons.IMAGE_INSPECTED, False, inspection.reason, message),
        attempt=inspection.attempt,
        next_attempt_time=timestamp(inspection.due),
    )
    reported = report(view.model, failed)
    if view.now < inspection.due:
        return reported | requeue_after((inspection.due - view.now).total_seconds())
    attempt = inspection.attempt + 1
    return reported | actions(
        InspectImage(view.model.key, view.image, view.secrets, view.inputs, attempt)
    )


def missing_image(state: Projection, model: KubeObject) -> str:
    """Why no template of this entry may begin a discovery; empty if one may. An image that is not
    inspected yet stops nothing."""
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
        f"image {image} of AIMClusterModel {model.key.name} is not found in its registry: push"
        " it, or correct spec.image; discovery continues then"
    )


def unsupported_warning(
    state: Projection, model: KubeObject, spec: TemplateSpec, namespace: str
) -> str:
    """A warning if the image recommends no deployment like this template; empty if it does, or if
    its labels are unknown."""
    record = image_record(state, model, namespace)
    if (
        record is None
        or record.body["data"].get(IMAGE_KEY) != model.spec["image"]
        or (found := _decode_labels(record)) is None
        or not found.recommended
    ):
        return ""
    requested = Deployment(spec.gpu_model, spec.gpus_per_replica, spec.precision, spec.metric)
    if any(each.supports(requested) for each in found.recommended):
        return ""
    return (
        f"the image does not recommend {requested}, but {_list_deployments(found.recommended)}"[
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
    found: Inspection | None = state.observation(model.key, INSPECTION)
    return found


def _current_condition(model: KubeObject) -> ReportedCondition:
    """The previous condition, if it is about the current image."""
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
        "reading the labels of the image from its registry",
    )


def _inspected_condition(found: ImageLabels, digest: str, trouble: str = "") -> ReportedCondition:
    what = found.title or found.canonical_name
    recommends = (
        f"recommends {_list_deployments(found.recommended)}"
        if found.recommended
        else "recommends no deployments"
    )
    token = "; the model's source needs a Hugging Face token" if found.token_required else ""
    message = f"{what + ': ' if what else ''}the image {recommends}{token} ({digest}){trouble}"
    return condition(reasons.IMAGE_INSPECTED, True, reasons.INSPECTED, message)


def _storage_problem(state: Projection, model: KubeObject) -> str:
    """The record cannot be written. That is reported, since no template gets a warning then."""
    rejection: ApplyRejected | None = state.observation(model.key, REJECTED)
    return (
        ""
        if rejection is None
        else (
            f"; this cannot be stored: {rejection.target.kind} {rejection.target.name} is rejected"
            f" by the API server: {rejection.message}"
        )
    )


def _list_deployments(recommended: Sequence[Deployment]) -> str:
    """Each deployment once."""
    different = list(dict.fromkeys(map(str, recommended)))
    more = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    return ", ".join(different[:MOST_NAMED]) + more


def _decode_labels(record: KubeObject) -> ImageLabels | None:
    try:
        return msgspec.json.decode(record.body["data"].get(LABELS_KEY, ""), type=ImageLabels)
    except msgspec.DecodeError:
        return None


def _record(model: KubeObject, record: KubeObject | None, former: str, namespace: str) -> Plan:
    """Record the image before a change, also if it could not be inspected: its discovery results
    count until the new image has some."""
    images = _recorded_images(record)
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


def _recorded_images(record: KubeObject | None) -> list[str]:
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
