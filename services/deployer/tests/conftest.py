"""A service `s` with its inputs: template `t`, model, discovery result, cache `c`,
InferenceService."""

import json
from typing import Any

import pytest

from aim_deployer import gpus
from aim_deployer.modes import Mode
from aim_deployer.plan import plan
from aim_deployer.projection import FAILURES
from aim_deployer.render import inference_service
from aim_deployer.resolve import ResolvedService, resolve
from aimcontroller import testing
from aimcontroller.failures import with_failures
from aimcontroller.plan import Plan
from aimcontroller.projection import Projection
from aimcontroller.testing import NAMESPACE, NOW, Body, applied, projection
from aimschema import labels
from aimschema.names import image_config_map
from aimschema.resources import CACHE, CONFIG_MAP, INFERENCE_SERVICE, SERVICE, TEMPLATE, Key

TABLE = gpus.load(None)
SPEC = {
    "model": "m:1",
    "metric": "latency",
    "precision": "auto",
    "gpusPerReplica": 2,
    "gpuModel": "MI300X",
    "tensorParallelism": 2,
}
PROFILE = {
    "model": "org/model",
    "quantized_model": "org/model-fp8",
    "metadata": {"precision": "fp8"},
    "engine_args": {"max-model-len": 4096, "dtype": "auto"},
    "env_vars": {"VLLM_USE_V1": True, "PYTHONPATH": "/evil", "THREADS": 4, "EMPTY": None},
}
URI = "hf://org/model"
OWN = "aim-system"


class World:
    key = Key(SERVICE.kind, NAMESPACE, "s")
    profile = PROFILE
    uri = URI

    def service(
        self,
        name: str = "s",
        *,
        status: Body | None = None,
        uid: str | None = None,
        annotations: Body | None = None,
        **spec: Any,
    ) -> Body:
        whole = {"model": "m:1", "templateRef": "t", "configRef": "default"} | spec
        body = testing.cr(
            SERVICE.kind, name, whole, status=status or {}, annotations=annotations or {}
        )
        return body if uid is None else {**body, "metadata": {**body["metadata"], "uid": uid}}

    def template(self, spec: Body | None = None, **fields: Any) -> Body:
        return testing.cr(TEMPLATE.kind, "t", SPEC | (spec or {}), **fields)

    def model(self, image: str = "example.org/m:1", **fields: Any) -> Body:
        return testing.cr("AIMClusterModel", "m", {"name": "m:1", "image": image}, **fields)

    def record(self, *images: str, namespace: str = OWN, owner: str = "m", **data: str) -> Body:
        """The images that the model had, as discovery records them."""
        whole = {"images.json": json.dumps(images)} | data
        return testing.obj(
            CONFIG_MAP.kind,
            image_config_map("m"),
            namespace=namespace,
            owner=("AIMClusterModel", owner),
            data=whole,
        )

    def config(self, name: str = "default", **spec: Any) -> Body:
        return testing.cr("AIMNamespaceConfig", name, spec)

    def result(
        self, *sources: str, profile: Body | None = None, image: str = "example.org/m:1"
    ) -> Body:
        models = [{"name": "model", "source": source, "size_gb": 1} for source in sources or (URI,)]
        data = {
            "result.json": json.dumps(
                {"profile": PROFILE if profile is None else profile, "models": models}
            ),
            "image": image,
        }
        return testing.config_map("t-discovery", (TEMPLATE.kind, "t"), data)

    def cache(
        self, state: str = "Available", name: str = "c", uri: str = URI, **status: Any
    ) -> Body:
        return testing.cr(CACHE.kind, name, {"sourceUri": uri}, status={"status": state} | status)

    def parts(self, *but: str, **spec: Any) -> list[Body]:
        """Everything for a service on a warm cache, without the kinds in `but`."""
        whole = [self.service(**spec), self.template(), self.model(), self.result(), self.cache()]
        return [body for body in whole if body["kind"] not in but]

    def runtime(
        self, ready: bool | None = True, *, cached: bool = True, config: bool = False, **status: Any
    ) -> Body:
        """The InferenceService that runs on the cache `c`."""
        config_body = [self.config(images={"imagePullSecrets": ["registry"]})] if config else []
        body = applied(
            self.plan(projection(*self.parts(cacheModel=cached), *config_body)),
            INFERENCE_SERVICE.kind,
        )
        existing = testing.obj(
            INFERENCE_SERVICE.kind, "s", owner=(SERVICE.kind, "s"), spec=body["spec"]
        )
        existing["metadata"]["annotations"] = body["metadata"]["annotations"] | {
            labels.ANNOTATION_CACHED: "true" if cached else "false"
        }
        return existing | {
            "status": {"conditions": [testing.status_condition("Ready", ready)]} | status
        }

    def pod(self, name: str = "s-predictor-x", **fields: Any) -> Body:
        return testing.pod(
            name,
            ("Job", "none"),
            "kserve-container",
            labels={labels.KSERVE_ISVC_LABEL: "s"},
            **fields,
        )

    def ready_pod(self, name: str = "s-predictor-r", **fields: Any) -> Body:
        container = {"name": "kserve-container", "ready": True, "state": {"running": {}}}
        status = {
            "phase": "Running",
            "conditions": [testing.status_condition("Ready", True)],
            "containerStatuses": [container],
        }
        return self.pod(name, status=status, **fields)

    def runs(self, **fields: Any) -> list[Body]:
        """The InferenceService, Ready, and its ready pod."""
        return [self.runtime(**fields), self.ready_pod()]

    def first_runtime(self, *objects: Body, **status: Any) -> Body:
        """The InferenceService as version 1 rendered it from these objects, and KServe reported
        on it."""
        body = self.rendered(*objects, version=1)
        existing = testing.obj(
            INFERENCE_SERVICE.kind,
            "s",
            owner=(SERVICE.kind, "s"),
            spec=body["spec"],
            labels=body["metadata"]["labels"],
        )
        existing["metadata"]["annotations"] = body["metadata"]["annotations"]
        return existing | {
            "status": {"conditions": [testing.status_condition("Ready", True)]} | status
        }

    def rendered(self, *objects: Body, version: int) -> Body:
        """What a render version makes of these objects (none: of `parts`)."""
        state = projection(*(objects or self.parts()))
        service = state.get(self.key)
        assert service is not None
        parts = resolve(state, service, TABLE)
        assert isinstance(parts, ResolvedService)
        cached = parts.spec.cache_model or all(source.warm for source in parts.sources)
        return inference_service(parts, cached=cached, mode=Mode(), version=version)

    def plan(self, state: Projection, mode: str = "auto") -> Plan:
        planned = plan(state, self.key, NOW, gpus=TABLE, mode=mode, namespace=OWN)
        return with_failures(planned, state, self.key, FAILURES)


@pytest.fixture
def world() -> World:
    return World()
