"""One AIMService with everything its plan depends on, gathered once. Pure.

1. The fields are read from the state in `ServiceView.build`; the properties are the questions that
   the planner matches on.
2. Nothing here decides: a property answers what is true, `plan` what follows from it.
"""

import datetime
from dataclasses import dataclass

from aim_deployer.caches import CachesView, cache_condition, mounted_condition
from aim_deployer.existing import is_running
from aim_deployer.gpus import GpuTable
from aim_deployer.modes import AUTO
from aim_deployer.projection import predictor_pods
from aim_deployer.resolve import ResolutionError, ResolvedService, resolve
from aim_deployer.runtime import Runtime, runtime
from aimcontroller.projection import REJECTED, ApplyRejected, KubeObject, Projection
from aimschema.messages import ReportedCondition
from aimschema.resources import BUDGET, INFERENCE_SERVICE, Key


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the deployer. `mode`: AIM_KSERVE_MODE; `namespace`: the control plane's own."""

    gpus: GpuTable
    mode: str = AUTO
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service, the objects that belong to it, and what is reported about them.

    `existing` is its InferenceService, `pods` are its predictors. `resolution` has the inputs of
    the service, or the first error. `caches` is CacheReady; None while it is unknown. `rejection`
    is the last error of the API server.
    """

    state: Projection
    now: datetime.datetime
    options: Options
    service: KubeObject
    existing: KubeObject | None
    pods: tuple[KubeObject, ...]
    budget: KubeObject | None
    resolution: ResolvedService | ResolutionError
    caches: ReportedCondition | None
    runtime: Runtime
    rejection: ApplyRejected | None

    @classmethod
    def build(
        cls, state: Projection, service: KubeObject, now: datetime.datetime, options: Options
    ) -> "ServiceView":
        namespace = service.key.namespace
        existing = state.get(Key(INFERENCE_SERVICE.kind, namespace, service.key.name))
        pods = tuple(predictor_pods(state, service.key))
        resolution = resolve(state, service, options.gpus, options.namespace)
        caches = None
        if isinstance(resolution, ResolvedService):
            caches = cache_condition(CachesView.build(state, resolution, existing, pods))
        elif existing is not None:
            caches = mounted_condition(state, service, existing)
        return cls(
            state=state,
            now=now,
            options=options,
            service=service,
            existing=existing,
            pods=pods,
            budget=state.get(Key(BUDGET.kind, namespace, service.key.name)),
            resolution=resolution,
            caches=caches,
            runtime=runtime(state, service, existing, pods, now, options.mode),
            rejection=state.observation(service.key, REJECTED),
        )

    @property
    def replicas(self) -> int:
        return int(self.service.spec.get("replicas", 1))

    @property
    def is_running(self) -> bool:
        return is_running(self.pods)

    @property
    def name_conflict(self) -> KubeObject | None:
        """The InferenceService, where it has another owner."""
        existing = self.existing
        return None if existing is None or self.service.uid in existing.owners else existing

    @property
    def is_cache_ready(self) -> bool:
        """The service is resolved, and its caches can be mounted."""
        return (
            isinstance(self.resolution, ResolvedService)
            and self.caches is not None
            and self.caches.status == "True"
        )

    @property
    def is_kserve_installed(self) -> bool:
        return self.state.is_kind_served(INFERENCE_SERVICE.kind)
