"""A template with its model and what discovery makes of it, in every state."""

import json
from typing import Any

import pytest

from aim_discovery.dry_run_output import LOG, ReadLogResult, digest_log
from aim_discovery.plan import plan
from aim_discovery.projection import FAILURES
from aim_discovery.render import CONTAINER
from aimcontroller import testing
from aimcontroller.failures import with_failures
from aimcontroller.plan import Plan
from aimcontroller.projection import Observation, Projection
from aimcontroller.testing import NAMESPACE, NOW, Body, applied, projection
from aimschema import labels
from aimschema.resources import JOB, POD, TEMPLATE, Key

SPEC = {
    "model": "m:1",
    "metric": "latency",
    "precision": "auto",
    "gpusPerReplica": 8,
    "gpuModel": "MI300X",
    "tensorParallelism": 8,
}
PROFILE = {
    "model": "org/model",
    "metadata": {
        "engine": "vllm",
        "gpu": "MI300X",
        "precision": "fp8",
        "gpu_count": 8,
        "metric": "latency",
    },
}
ANSWER = {
    "filename": "p.yaml",
    "profile": PROFILE,
    "models": [{"name": "model", "source": "hf://org/model", "size_gb": 16}],
}


class World:
    """Bodies of a template `t` for model `m:1` and its parts; the Job is the one for the present
    inputs."""

    key = Key(TEMPLATE.kind, NAMESPACE, "t")
    owner = (TEMPLATE.kind, "t")
    answer = ANSWER
    own_namespace = "aim-system"

    def model(self, image: str = "example.org/m:1", name: str = "m", **fields: Any) -> Body:
        return testing.cr("AIMClusterModel", name, {"name": "m:1", "image": image}, **fields)

    def template(self, name: str = "t", **fields: Any) -> Body:
        return testing.cr(TEMPLATE.kind, name, SPEC, **fields)

    def rendered(self, kind: str, *others: Body) -> Body:
        """The object of this kind that an attempt applies at its start."""
        return applied(self.plan(projection(*(others or (self.model(), self.template())))), kind)

    def job(
        self, state: str = "active", *, attempt: int = 1, tried: str | None = None, **fields: Any
    ) -> Body:
        rendered = self.rendered(JOB.kind)["metadata"]
        marks = {
            labels.ANNOTATION_ATTEMPT: str(attempt),
            labels.ANNOTATION_TRIED: tried or rendered["annotations"][labels.ANNOTATION_TRIED],
        }
        return testing.job(
            rendered["name"],
            fields.pop("owner", self.owner),
            state,
            **{"annotations": marks, "labels": rendered["labels"], **fields},
        )

    def note(self, *, answered: bool = False, **fields: Any) -> Body:
        """The ConfigMap: what was tried, or the answer for the present inputs."""
        tried = self.rendered("ConfigMap")["metadata"]["annotations"][labels.ANNOTATION_TRIED]
        inputs = {"inputs": self.job()["metadata"]["name"].rpartition("-")[2]} if answered else {}
        data = {"result.json": json.dumps(ANSWER), "image": "example.org/m:1"} if answered else {}
        return testing.config_map(
            "t-discovery", fields.pop("owner", self.owner), data, tried=tried, **inputs
        )

    def pod(self, phase: str, exit_code: int | None = None, **fields: Any) -> Body:
        state = {"running": {}} if exit_code is None else {"terminated": {"exitCode": exit_code}}
        return testing.pod(
            "p", (JOB.kind, self.job()["metadata"]["name"]), CONTAINER, state, phase=phase, **fields
        )

    def log(self, text: str = "", problem: str = "") -> Observation:
        return Observation(
            Key(POD.kind, NAMESPACE, "p"),
            LOG,
            ReadLogResult(problem=problem) if problem else digest_log(text.encode()),
        )

    def ended(self, exit_code: int, **fields: Any) -> Body:
        """The pod, whose container of the image has ended."""
        return testing.ended_pod(
            "p", (JOB.kind, self.job()["metadata"]["name"]), CONTAINER, exit_code, **fields
        )

    def plan(self, state: Projection, key: Key | None = None, **settings: Any) -> Plan:
        planned = plan(state, key or self.key, NOW, namespace=self.own_namespace, **settings)
        return with_failures(planned, state, key or self.key, FAILURES)


@pytest.fixture
def world() -> World:
    return World()
