"""One cache with everything its plan depends on, gathered once."""

import datetime
import json
from dataclasses import dataclass
from typing import Any

from aim_cacher.projection import config_of
from aim_cacher.render import Body, download_env, requested
from aimcontroller.projection import REFUSED, Projection, Refusal, Seen
from aimschema import labels, names
from aimschema.credentials import DEFAULT_CONFIG
from aimschema.kinds import CacheSpec, ConfigSpec
from aimschema.messages import ReportedCondition, parse_timestamp
from aimschema.reasons import CACHER, OWNED
from aimschema.resources import CACHE, CLAIM, JOB, STORAGE_CLASS, Key

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
FIELDS = OWNED[CACHE.kind][CACHER][1]


@dataclass(frozen=True)
class View:
    """`said` and `kept` are the conditions and status fields as last reported; `config` is None
    where there is none.

    `ca`: certificates that its Jobs trust beside the public ones.
    """

    cache: Seen
    spec: CacheSpec
    config_name: str
    config: ConfigSpec | None
    claim: Seen | None
    wanted_class: str | None
    storage_class: Seen | None
    class_of_new: Seen | None
    download: Seen | None
    size: Seen | None
    said: tuple[ReportedCondition, ...]
    kept: dict[str, Any]
    refusal: Refusal | None
    ca: str = ""

    @property
    def env(self) -> list[Body]:
        return download_env(self.config, self.spec.env)

    @property
    def inputs(self) -> str:
        """What a try depends on: when this changes, the next one need not wait."""
        parts = [self.cache.spec, self.env, self.cache.annotations.get(labels.ANNOTATION_RETRY)]
        return names.short_hash(
            [json.dumps(parts, sort_keys=True), *([self.ca] if self.ca else [])]
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
    def filled_revision(self) -> str | None:
        """Revision that the volume holds; written on the claim, so that a new claim of the same
        name is known to be empty."""
        return None if self.claim is None else self.claim.annotations.get(labels.ANNOTATION_FILLED)

    @property
    def volume_size(self) -> str | None:
        """What the claim has, or asks for; without a claim what the spec asks for."""
        if self.claim is not None:
            return (self.claim.status.get("capacity") or {}).get("storage") or requested(self.claim)
        return None if self.spec.size is None else str(self.spec.size)

    @property
    def tried_before(self) -> bool:
        """Whether the tries that are counted were made from these inputs."""
        return (
            self.claim is None or self.claim.annotations.get(labels.ANNOTATION_TRIED) == self.inputs
        )

    @property
    def attempts(self) -> int:
        """Failed tries in a row for these inputs."""
        return int(self.kept.get("attempts", 0)) if self.tried_before else 0

    @property
    def next_try(self) -> datetime.datetime | None:
        text = self.kept.get("nextAttemptTime")
        return parse_timestamp(text) if text and self.attempts else None


def look(seen: Projection, cache: Seen, ca: str = "") -> View:
    namespace = cache.key.namespace
    spec = CacheSpec.model_validate(cache.spec)
    config_key = config_of(cache, namespace)
    found = seen.get(config_key)
    config = None if found is None else ConfigSpec.model_validate(found.spec)
    claim = seen.get(Key(CLAIM.kind, namespace, names.cache_claim(cache.key.name)))
    wanted_class = spec.storage_class_name or (
        config.cache_storage_class_name if config is not None else None
    )
    said = seen.report(cache.key, CACHER)
    return View(
        cache=cache,
        spec=spec,
        config_name=config_key.name,
        config=config,
        claim=claim,
        wanted_class=wanted_class,
        storage_class=_class(
            seen, wanted_class if claim is None else claim.spec.get("storageClassName")
        ),
        class_of_new=_class(seen, wanted_class),
        download=seen.get(Key(JOB.kind, namespace, names.cache_download_job(cache.key.name))),
        size=seen.get(Key(JOB.kind, namespace, names.cache_size_job(cache.key.name))),
        said=said.conditions if said is not None and said.uid == cache.uid else _conditions(cache),
        kept=(
            said.fields
            if said is not None and said.uid == cache.uid
            else {name: cache.status[name] for name in FIELDS if name in cache.status}
        ),
        refusal=seen.learned(cache.key, REFUSED),
        ca=ca,
    )


def _class(seen: Projection, name: str | None) -> Seen | None:
    """The storage class of this name; without a name the cluster's default (the newest, as the
    admission plugin takes it)."""
    if name is not None:
        return seen.get(Key(STORAGE_CLASS.kind, None, name))
    defaults = [
        each
        for each in seen.everywhere(STORAGE_CLASS.kind)
        if each.annotations.get(DEFAULT_CLASS) == "true"
    ]
    return max(defaults, key=lambda each: (each.created, each.key.name), default=None)


def _conditions(cache: Seen) -> tuple[ReportedCondition, ...]:
    return tuple(
        ReportedCondition(
            type=c["type"],
            status=c.get("status", "Unknown"),
            reason=c.get("reason", ""),
            message=c.get("message", ""),
        )
        for c in cache.status.get("conditions") or ()
        if c.get("type") in OWNED[CACHE.kind][CACHER][0]
    )
