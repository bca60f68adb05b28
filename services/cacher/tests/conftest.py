"""A cache and what belongs to it, in every state; the builders all tests of the cacher start
from."""

import json
from typing import Any

import pytest

from aim_cacher.job_options import JobOptions
from aim_cacher.plan import plan
from aim_cacher.projection import FAILURES
from aim_cacher.render import CONTAINER
from aim_cacher.view import CacheView
from aimcontroller import testing
from aimcontroller.failures import with_failures
from aimcontroller.plan import Plan
from aimcontroller.projection import Projection
from aimcontroller.testing import NAMESPACE, NOW, Body, changed, projection, uid_of
from aimschema import labels
from aimschema.resources import CACHE, Key

IMAGE = "example.org/downloader:1"
URI = "hf://org/model"


class World:
    """Bodies of one cache `c` and its parts. `inputs` is the hash that its current attempts
    have."""

    key = Key(CACHE.kind, NAMESPACE, "c")
    image = IMAGE
    uri = URI
    owner = (CACHE.kind, "c")

    def cache(self, size: str | None = "20Gi", name: str = "c", **fields: Any) -> Body:
        spec = fields.pop("spec", {"sourceUri": URI} | ({} if size is None else {"size": size}))
        return testing.cr(CACHE.kind, name, spec, **fields)

    def template(self, *, warm: bool = True, name: str = "t", **fields: Any) -> Body:
        spec = {
            "model": "m",
            "metric": "latency",
            "gpusPerReplica": 1,
            "gpuModel": "MI300X",
            "tensorParallelism": 1,
            "warmCache": warm,
        }
        return testing.cr("AIMServiceTemplate", name, spec, **fields)

    def result(self, *models: Body, template: str = "t", version: int = 1) -> Body:
        data = {
            "result.json": json.dumps(
                {"models": list(models) or [{"name": "m", "source": URI, "size_gb": 10}]}
            ),
            "image": "i",
        }
        body = testing.config_map(f"{template}-discovery", ("AIMServiceTemplate", template), data)
        body["metadata"]["resourceVersion"] = str(version)
        return body

    def service(self, name: str = "s", *, age_s: float = 3600, **spec: Any) -> Body:
        return testing.cr(
            "AIMService",
            name,
            {"model": "m", "templateRef": "t", "cacheModel": True, "configRef": "default"} | spec,
            age_s=age_s,
        )

    def config(self, name: str = "default", **spec: Any) -> Body:
        return testing.cr("AIMNamespaceConfig", name, spec)

    def inputs(self, cache: Body, *others: Body) -> str:
        """The inputs of an attempt of the cache, with these configs."""
        state = projection(cache, *others)
        found = state.get(changed_key(cache))
        assert found is not None
        return CacheView.build(state, found, NOW, JobOptions(IMAGE)).inputs

    def claim(
        self,
        phase: str = "Bound",
        *,
        cache: Body | None = None,
        filled: str | None = None,
        **fields: Any,
    ) -> Body:
        """The claim of `c`; of a `cache` it is marked as tried with its inputs."""
        marks = {} if filled is None else {labels.ANNOTATION_FILLED: filled}
        marks |= {} if cache is None else {labels.ANNOTATION_TRIED: self.inputs(cache)}
        return testing.claim(
            "c-cache", fields.pop("owner", self.owner), phase, **{"annotations": marks, **fields}
        )

    def download(
        self,
        state: str = "active",
        *,
        cache: Body | None = None,
        attempt: int = 1,
        claim: str | None = None,
        **fields: Any,
    ) -> Body:
        """The download Job of `c`, of the n-th attempt, for the claim with this uid."""
        inputs = self.inputs(cache or self.cache())
        filling = claim or uid_of("PersistentVolumeClaim", "c-cache")
        marks = {
            labels.ANNOTATION_ATTEMPT: str(attempt),
            labels.ANNOTATION_INPUTS: f"{inputs}.{filling}",
        }
        return testing.job(
            "c-download", fields.pop("owner", self.owner), state, **{"annotations": marks, **fields}
        )

    def probe(
        self, state: str = "active", *, cache: Body | None = None, attempt: int = 1, **fields: Any
    ) -> Body:
        inputs = self.inputs(cache or self.cache(None))
        marks = {labels.ANNOTATION_ATTEMPT: str(attempt), labels.ANNOTATION_INPUTS: inputs}
        return testing.job("c-size", self.owner, state, **{"annotations": marks, **fields})

    def ended(
        self, exit_code: int, message: str = "", job: str = "c-download", **fields: Any
    ) -> Body:
        return testing.ended_pod(f"{job}-x", ("Job", job), CONTAINER, exit_code, message, **fields)

    def running(self, job: str = "c-download", **fields: Any) -> Body:
        return testing.pod(f"{job}-x", ("Job", job), CONTAINER, **fields)

    def plan(
        self, state: Projection, name: str = "c", kind: str = CACHE.kind, **settings: Any
    ) -> Plan:
        key = Key(kind, NAMESPACE, name)
        planned = plan(state, key, NOW, options=JobOptions(IMAGE, **settings))
        return with_failures(planned, state, key, FAILURES)


def changed_key(body: Body) -> Key:
    message = changed(body)
    return Key(message.kind, message.namespace, message.name)


@pytest.fixture
def world() -> World:
    return World()
