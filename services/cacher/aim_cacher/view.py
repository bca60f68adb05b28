"""One cache with everything its plan depends on, gathered once. Pure.

1. The fields are read from the state in `CacheView.build`; the properties are the questions that
   the planner matches on.
2. Nothing here decides: a property answers what is true, `plan` what follows from it.
"""

import datetime
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aim_cacher.downloader_output import read_result
from aim_cacher.job_options import JobOptions, download_env, options_of
from aim_cacher.projection import config_of, oldest_requester_of_source
from aim_cacher.render import (
    CONTAINER,
    SHARED,
    Body,
    job_fills_claim,
    requested_size,
)
from aimcontroller.plan import without_notes
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimcontroller.queries import caches_of, has_failed
from aimcontroller.workloads import outcome
from aimschema import labels, names, quantities
from aimschema.kinds import CacheSpec, ConfigSpec
from aimschema.messages import ReportedCondition, parse_timestamp
from aimschema.names import DEFAULT_CONFIG
from aimschema.propagation import passed_on
from aimschema.reasons import CACHER, STATUS_OWNERSHIP
from aimschema.resources import CACHE, CLAIM, JOB, STORAGE_CLASS, Key

FIELDS = STATUS_OWNERSHIP[CACHE.kind][CACHER][1]


@dataclass(frozen=True)
class CacheView:
    """One cache, the objects that belong to it, and what the cacher last reported about it.

    `options` are those of the cluster and the config. `config` is None where the named config does
    not exist. `storage_class` is the class of the claim, or the one that a new claim gets;
    `class_of_new_claim` is always the latter. `reported_conditions`, without notes, and
    `reported_fields` are those of the last report.
    """

    state: Projection
    now: datetime.datetime
    options: JobOptions
    cache: KubeObject
    spec: CacheSpec
    config_name: str
    config: ConfigSpec | None
    claim: KubeObject | None
    desired_class: str | None
    storage_class: KubeObject | None
    class_of_new_claim: KubeObject | None
    download_job: KubeObject | None
    size_job: KubeObject | None
    reported_conditions: tuple[ReportedCondition, ...]
    reported_fields: dict[str, Any]
    rejection: ApplyRejected | None

    @classmethod
    def build(
        cls, state: Projection, cache: KubeObject, now: datetime.datetime, options: JobOptions
    ) -> "CacheView":
        namespace = cache.key.namespace
        spec = cache.spec_as(CacheSpec.model_validate)
        config_key = config_of(cache, namespace)
        config_object = state.get(config_key)
        config = None if config_object is None else config_object.spec_as(ConfigSpec.model_validate)
        claim = state.get(Key(CLAIM.kind, namespace, names.cache_claim(cache.key.name)))
        desired_class = spec.storage_class_name or (
            config.cache_storage_class_name if config is not None else None
        )
        class_of_claim = desired_class if claim is None else claim.spec.get("storageClassName")
        conditions, fields = _last_report(state, cache)
        return cls(
            state=state,
            now=now,
            options=options_of(config, options),
            cache=cache,
            spec=spec,
            config_name=config_key.name,
            config=config,
            claim=claim,
            desired_class=desired_class,
            storage_class=_storage_class(state, class_of_claim),
            class_of_new_claim=_storage_class(state, desired_class),
            download_job=state.get(
                Key(JOB.kind, namespace, names.cache_download_job(cache.key.name))
            ),
            size_job=state.get(Key(JOB.kind, namespace, names.cache_size_job(cache.key.name))),
            reported_conditions=conditions,
            reported_fields=fields,
            rejection=state.observation(cache.key, REJECTED),
        )

    @cached_property
    def env(self) -> list[Body]:
        return download_env(self.config, self.spec.env, self.options)

    @cached_property
    def inputs(self) -> str:
        """What an attempt depends on: when this changes, the next attempt need not wait."""
        parts = [self.cache.spec, self.env, self.cache.annotations.get(labels.ANNOTATION_RETRY)]
        return names.short_hash([json.dumps(parts, sort_keys=True), *self.options.fingerprint])

    @property
    def duplicate_of(self) -> KubeObject | None:
        """The oldest cache of the same source, where that is another cache."""
        source = str(self.cache.spec["sourceUri"])
        oldest = caches_of(self.state, self.cache.key.namespace, source)[0]
        return None if oldest.key == self.cache.key else oldest

    @property
    def is_disposable(self) -> bool:
        """AIM created the cache, no object requests it any more, and it holds nothing: it failed,
        or is a duplicate. While an image is inspected again, its last answer still counts."""
        is_created_by_aim = self.cache.labels.get(labels.MANAGED_BY) == labels.MANAGED_BY_AIM
        source = str(self.cache.spec["sourceUri"])
        namespace = self.cache.key.namespace
        if not is_created_by_aim or oldest_requester_of_source(self.state, namespace, source):
            return False
        return has_failed(self.cache) or self.duplicate_of is not None

    @property
    def name_conflict(self) -> KubeObject | None:
        """The first object that has a name the cache needs, and that the cache does not own."""
        candidates = (self.claim, self.download_job, self.size_job)
        return next(
            (obj for obj in candidates if obj is not None and self.cache.uid not in obj.owners),
            None,
        )

    @property
    def config_missing(self) -> str | None:
        """What to do where a named config does not exist."""
        if self.config is not None or self.config_name == DEFAULT_CONFIG:
            return None
        return (
            f"AIMNamespaceConfig {self.config_name} does not exist in this namespace; create it or"
            f" change annotation {labels.ANNOTATION_CONFIG}"
        )

    @property
    def is_waiting_for_claim(self) -> bool:
        """Only storage is missing for its claim."""
        return (
            self.claim is None
            and not self.is_disposable
            and self.duplicate_of is None
            and self.name_conflict is None
            and self.config_missing is None
            and self.claim_size is not None
        )

    @property
    def claim_size(self) -> str | int | None:
        """Size of a new claim: the one in the spec, else what a finished size Job measured, with
        headroom. None while it is unknown."""
        if self.spec.size is not None:
            return self.spec.size
        job = self.size_job
        if job is None or outcome(self.state, job, CONTAINER) != "succeeded":
            return None
        measured_bytes = read_result(self.state, job).bytes
        return None if measured_bytes is None else quantities.with_headroom(measured_bytes)

    @property
    def passed_labels(self) -> dict[str, str]:
        """Labels that what belongs to the cache gets from it."""
        return passed_on(self.cache.labels, self.config)

    @property
    def access_mode(self) -> str:
        """Of a new claim."""
        caching = None if self.config is None else self.config.caching
        return SHARED if caching is None else caching.access_mode or SHARED

    @property
    def is_claim_misplaced(self) -> bool:
        """The claim never got a volume, and a new claim would have another class, which exists."""
        claim = self.claim
        if (
            claim is None
            or claim.status.get("phase") not in {None, "Pending"}
            or claim.spec.get("volumeName")
            or self.class_of_new_claim is None
        ):
            return False
        return self.storage_class is None or self.desired_class not in {
            None,
            claim.spec.get("storageClassName"),
        }

    @property
    def is_claim_mountable(self) -> bool:
        """The claim is bound, or waits for a pod that mounts it."""
        if self.claim is None or self.claim.deleting:
            return False
        waits_for_pod = (
            self.storage_class is not None
            and self.storage_class.body.get("volumeBindingMode") == "WaitForFirstConsumer"
        )
        phase = self.claim.status.get("phase")
        return phase == "Bound" or (phase == "Pending" and waits_for_pod)

    @property
    def filled_revision(self) -> str | None:
        """Revision that the volume holds. It is an annotation of the claim, so that a new claim of
        the same name is known to be empty."""
        return None if self.claim is None else self.claim.annotations.get(labels.ANNOTATION_FILLED)

    @property
    def is_filled(self) -> bool:
        return self.filled_revision is not None

    @property
    def is_downloaded(self) -> bool:
        """The download Job of this claim succeeded."""
        return (
            self.download_job is not None
            and self.claim is not None
            and job_fills_claim(self.download_job, self.claim)
            and outcome(self.state, self.download_job, CONTAINER) == "succeeded"
        )

    @property
    def volume_size(self) -> str | None:
        """What the claim has, or requests; without a claim what the spec requests."""
        if self.claim is not None:
            capacity = self.claim.status.get("capacity") or {}
            return capacity.get("storage") or requested_size(self.claim)
        return None if self.spec.size is None else str(self.spec.size)

    @property
    def is_same_attempt(self) -> bool:
        """The attempts that are counted were made from these inputs."""
        return (
            self.claim is None or self.claim.annotations.get(labels.ANNOTATION_TRIED) == self.inputs
        )

    @property
    def attempts(self) -> int:
        """Failed attempts in a row for these inputs."""
        return int(self.reported_fields.get("attempts", 0)) if self.is_same_attempt else 0

    @property
    def next_attempt(self) -> datetime.datetime | None:
        text = self.reported_fields.get("nextAttemptTime")
        return parse_timestamp(text) if text and self.attempts else None


def _last_report(
    state: Projection, cache: KubeObject
) -> tuple[tuple[ReportedCondition, ...], dict[str, Any]]:
    """Conditions and fields of the cacher's last report; without one, those of the status."""
    report = state.report(cache.key, CACHER)
    if report is not None and report.uid == cache.uid:
        return tuple(map(without_notes, report.conditions)), report.fields
    fields = {name: cache.status[name] for name in FIELDS if name in cache.status}
    return _conditions_of_status(cache), fields


def _storage_class(state: Projection, name: str | None) -> KubeObject | None:
    """The storage class of this name; without a name the cluster's default (the newest, as the
    admission plugin takes it)."""
    if name is not None:
        return state.get(Key(STORAGE_CLASS.kind, None, name))
    defaults = [
        storage_class
        for storage_class in state.in_namespace(STORAGE_CLASS.kind, None)
        if storage_class.annotations.get(labels.DEFAULT_STORAGE_CLASS) == "true"
    ]
    return max(defaults, key=lambda found: (found.creation_timestamp, found.key.name), default=None)


def _conditions_of_status(cache: KubeObject) -> tuple[ReportedCondition, ...]:
    return tuple(
        ReportedCondition(
            type=condition["type"],
            status=condition.get("status", "Unknown"),
            reason=condition.get("reason", ""),
            message=condition.get("message", ""),
        )
        for condition in cache.status.get("conditions") or ()
        if condition.get("type") in STATUS_OWNERSHIP[CACHE.kind][CACHER][0]
    )
