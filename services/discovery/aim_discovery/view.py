"""One template with everything its discovery depends on, gathered once. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from aim_discovery.catalogue import missing_image, unsupported_warning
from aim_discovery.render import inputs_of
from aimcontroller.jobs import JobRules, job_tolerations
from aimcontroller.plan import existing_condition, without_notes
from aimcontroller.projection import (
    FIELD_CONFLICT,
    REJECTED,
    ApplyRejected,
    FieldConflict,
    KubeObject,
    Projection,
)
from aimschema import labels, names, reasons
from aimschema.discovery_result import IMAGE_KEY, Discovered, from_config_map
from aimschema.kinds import ConfigSpec, TemplateSpec
from aimschema.messages import ReportedCondition, ReportedWarning, StatusReported
from aimschema.names import DEFAULT_CONFIG
from aimschema.resources import CONFIG, CONFIG_MAP, JOB, Key


@dataclass(frozen=True, slots=True)
class DiscoveryOptions:
    """`namespace`: the control plane's own. `first_retry_s`: how long a template waits after its
    first failure."""

    namespace: str
    first_retry_s: float
    rules: JobRules


@dataclass(frozen=True)
class TemplateView:
    """One template with everything its plan depends on. `last_fields`, `last_condition` and
    `last_warnings` are as last reported.

    `result` is the ConfigMap of the answer, `data` its content if that is readable. It counts as
    `answer` unless it has the current inputs and another image. `image_missing` and `unsupported`:
    what is wrong with image and template; empty for nothing. `field_conflict`: the field managers
    that change the ConfigMap again and again; None without any.
    """

    template: KubeObject
    spec: TemplateSpec
    image: str
    config: ConfigSpec | None
    result: KubeObject | None
    answer: Discovered | None
    data: dict[str, str]
    job: KubeObject | None
    last_fields: dict[str, Any]
    last_condition: ReportedCondition | None
    last_warnings: tuple[ReportedWarning, ...]
    rejection: ApplyRejected | None
    image_missing: str
    unsupported: str
    field_conflict: FieldConflict | None
    options: DiscoveryOptions

    @classmethod
    def build(
        cls, state: Projection, template: KubeObject, model: KubeObject, options: DiscoveryOptions
    ) -> "TemplateView":
        namespace = template.key.namespace
        name = template.key.name
        spec = template.spec_as(TemplateSpec.model_validate)
        image = str(model.spec["image"])
        config = state.get(Key(CONFIG.kind, namespace, DEFAULT_CONFIG))
        result_key = Key(CONFIG_MAP.kind, namespace, names.discovery_config_map(name))
        result = state.get(result_key)
        answer = None if result is None else result.body_as(from_config_map)
        data: dict[str, str] = {} if result is None or answer is None else result.body["data"]
        if result is not None and _is_of_another_image(result, data, image, spec):
            answer = None
        job_name = names.discovery_job(name, inputs_of(image, spec))
        last = _last_report(state, template)
        return cls(
            template=template,
            spec=spec,
            image=image,
            config=None if config is None else config.spec_as(ConfigSpec.model_validate),
            result=result,
            answer=answer,
            data=data,
            job=state.get(Key(JOB.kind, namespace, job_name)),
            last_fields=last_reported_fields(state, template),
            last_condition=_last_condition(last, template),
            last_warnings=() if last is None else last.warnings,
            rejection=state.observation(template.key, REJECTED),
            image_missing=missing_image(state, model),
            unsupported=unsupported_warning(state, model, spec, options.namespace),
            field_conflict=state.observation(result_key, FIELD_CONFLICT),
            options=options,
        )

    @property
    def name_conflict(self) -> KubeObject | None:
        """The first object that has a name the template needs, and that it does not own."""
        candidates = (self.result, self.job)
        return next(
            (obj for obj in candidates if obj is not None and self.template.uid not in obj.owners),
            None,
        )

    @property
    def job_key(self) -> Key:
        return Key(
            JOB.kind,
            self.template.key.namespace,
            names.discovery_job(self.template.key.name, self.inputs),
        )

    @property
    def inputs(self) -> str:
        return inputs_of(self.image, self.spec)

    @property
    def attempt_inputs(self) -> str:
        """Digest of what an attempt depends on: inputs, pull secrets, tolerations, and the
        annotation that requests a retry."""
        secrets = (
            self.config.images.image_pull_secrets
            if self.config is not None and self.config.images is not None
            else []
        )
        retry = self.template.annotations.get(labels.ANNOTATION_RETRY, "")
        tolerations = [json.dumps(each, sort_keys=True) for each in job_tolerations(self.config)]
        return names.short_hash([self.inputs, *secrets, *tolerations, retry])

    @property
    def is_answered(self) -> bool:
        """The answer is for the present inputs."""
        return (
            self.answer is not None
            and self.result is not None
            and self.result.annotations.get(labels.ANNOTATION_INPUTS) == self.inputs
        )

    @property
    def is_same_attempt(self) -> bool:
        """The attempts that are counted have the same inputs as the next one."""
        return (
            self.result is not None
            and self.result.annotations.get(labels.ANNOTATION_TRIED) == self.attempt_inputs
        )

    @property
    def attempts(self) -> int:
        return int(self.last_fields.get("attempts", 0)) if self.is_same_attempt else 0

    @property
    def reported_fields(self) -> dict[str, Any]:
        """Status fields to repeat; attempts with other inputs no longer count."""
        if self.is_same_attempt:
            return self.last_fields
        fields = {
            name: value for name, value in self.last_fields.items() if name != "nextAttemptTime"
        }
        return fields | ({"attempts": 0} if fields.get("attempts") else {})


def _is_of_another_image(
    result: KubeObject, data: dict[str, str], image: str, spec: TemplateSpec
) -> bool:
    """The answer has the present inputs, which include the image, and yet another image: discovery
    did not write it."""
    has_current_inputs = result.annotations.get(labels.ANNOTATION_INPUTS) == inputs_of(image, spec)
    return has_current_inputs and data.get(IMAGE_KEY) != image


def last_reported_fields(state: Projection, template: KubeObject) -> dict[str, Any]:
    """Status fields as last reported; without a report, those of the status."""
    last = _last_report(state, template)
    if last is not None:
        return dict(last.fields)
    owned = reasons.STATUS_OWNERSHIP[template.key.kind][reasons.DISCOVERY][1]
    return {name: value for name, value in template.status.items() if name in owned}


def _last_report(state: Projection, template: KubeObject) -> StatusReported | None:
    """The last report on this template, not on a former one of the same name."""
    last = state.report(template.key, reasons.DISCOVERY)
    return last if last is not None and last.uid == template.uid else None


def _last_condition(last: StatusReported | None, template: KubeObject) -> ReportedCondition | None:
    """Discovered as last reported; without a report, as the status has it."""
    if last is not None:
        return next(map(without_notes, last.conditions), None)
    return existing_condition(template, reasons.DISCOVERED)
