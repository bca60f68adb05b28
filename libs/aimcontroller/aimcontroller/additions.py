"""Fields that others add to our objects and that change their behaviour. Pure.

Server-side apply and drift repair ignore fields that we do not send: users and other controllers
may add labels, tolerations or environment. `ADDITIONS` are the exceptions: fields that must be
absent unless we send them. A patch removes them and never sets another value, because a value of
ours would reach pod templates and restart running pods.

Some fields are not listed because people need them, and they determine where or for whom a pod
runs, not what it does: tolerations, nodeSelector, priorityClassName, schedulerName, env, volumes,
imagePullSecrets, serviceAccountName, labels. `timeout` and `containerConcurrency` of a predictor
are not listed either: KServe's defaulting may set them, and without Knative they have no effect.
The same holds for Jobs (created once, and `suspend` is Kueue's), PVCs (a larger request expands a
volume) and ConfigMaps (only the keys we send are read).
"""

from collections.abc import Iterator
from typing import Any

from aimschema.labels import KSERVE_NO_UPDATES, KSERVE_STOP
from aimschema.resources import BUDGET, INFERENCE_SERVICE, ROUTE

Body = dict[str, Any]
Path = tuple[str, ...]
ANY = "*"
_PREDICTOR = ("spec", "predictor")
_CONTAINER = (*_PREDICTOR, "containers", ANY)
_RULE = ("spec", "rules", ANY)
_FRAMEWORKS = (
    "model",
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
ADDITIONS: dict[str, dict[Path, str]] = {
    INFERENCE_SERVICE.kind: {
        ("metadata", "annotations", KSERVE_STOP): "KServe removes the pods",
        (*_PREDICTOR, "annotations", KSERVE_STOP): "KServe removes the pods",
        ("metadata", "annotations", KSERVE_NO_UPDATES): "KServe no longer carries out changes",
        ("spec", "transformer"): "it answers instead of the model",
        ("spec", "explainer"): "it answers instead of the model",
        **dict.fromkeys(((*_PREDICTOR, each) for each in _FRAMEWORKS), "a second model server"),
        (*_PREDICTOR, "storageUris"): "KServe loads another model",
        (*_PREDICTOR, "workerSpec"): "KServe runs it on several nodes",
        (*_PREDICTOR, "canaryTrafficPercent"): "a part of the requests goes to another revision",
        **dict.fromkeys(
            (
                (*_PREDICTOR, each)
                for each in ("autoScaling", "scaleTarget", "scaleMetric", "scaleMetricType")
            ),
            "the number of replicas is spec.replicas",
        ),
        (
            *_PREDICTOR,
            "deploymentStrategy",
            "rollingUpdate",
        ): "the Deployment is rejected where the strategy is Recreate",
        (*_PREDICTOR, "batcher"): "requests are delayed and batched",
        (*_PREDICTOR, "logger"): "requests are sent to another server",
        (*_PREDICTOR, "initContainers"): "the model server waits for them",
        (*_PREDICTOR, "schedulingGates"): "pods are held back",
        (*_PREDICTOR, "nodeName"): "the scheduler is bypassed",
        (*_PREDICTOR, "activeDeadlineSeconds"): "pods are ended",
        (*_PREDICTOR, "restartPolicy"): "pods are not started again",
        **dict.fromkeys(
            ((*_PREDICTOR, each) for each in ("hostNetwork", "hostPID", "hostIPC")),
            "pods share the node",
        ),
        _CONTAINER: "a container beside the model server",
        **dict.fromkeys(
            ((*_CONTAINER, each) for each in ("command", "args", "workingDir", "lifecycle")),
            "another program runs",
        ),
        (*_CONTAINER, "livenessProbe"): "the model server is stopped while it loads",
    },
    ROUTE.kind: {
        ("spec", "hostnames"): "requests for other hosts get no answer",
        ("spec", "useDefaultGateways"): "it is attached to other gateways",
        ("spec", "parentRefs", ANY): "it is attached to another gateway",
        **dict.fromkeys(
            ((*_RULE, each) for each in ("timeouts", "retry", "sessionPersistence")),
            "requests are handled in another way",
        ),
        **dict.fromkeys(
            ((*_RULE, "matches", ANY, each) for each in ("headers", "queryParams", "method")),
            "other requests get no answer",
        ),
        (*_RULE, "backendRefs", ANY): "a part of the requests goes somewhere else",
        (*_RULE, "backendRefs", ANY, "filters"): "requests are changed",
    },
    BUDGET.kind: {
        (
            "spec",
            "unhealthyPodEvictionPolicy",
        ): "a drain of nodes stops or goes on where it should not",
    },
}
"""By kind, the paths that only we may set, and what they do. `*`: any key, or any item of a list
(by name where items have one)."""


def removal(sent: Body, live: Body) -> Body | None:
    """The merge patch (RFC 7386) that removes from `live` what must be absent and is not in
    `sent`; None where nothing is to go."""
    left: Any = live
    for path in ADDITIONS.get(str(live.get("kind")), {}):
        left = _without(left, sent, path)
    if left == live:
        return None
    return dict(_difference(live, left))


def merge(live: Any, patch: Any) -> Any:
    """`live` once a merge patch (RFC 7386) has been carried out on it; neither of them changes."""
    if not isinstance(patch, dict):
        return patch
    base = live if isinstance(live, dict) else {}
    changed = {
        key: merge(base.get(key), value) for key, value in patch.items() if value is not None
    }
    return {key: value for key, value in base.items() if key not in patch} | changed


def first_path(patch: Body) -> Path:
    """The first path that a removal takes away or changes."""
    for key, value in patch.items():
        return (key, *first_path(value)) if isinstance(value, dict) else (key,)
    return ()


def _without(live: Any, sent: Any, path: Path) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(live, list):
        return [_item(item, of, rest) for item, of in _pairs(live, sent) if rest or of is not None]
    if not isinstance(live, dict):
        return live
    ours = sent if isinstance(sent, dict) else {}
    if rest:
        touched = {
            key: _without(live[key], ours.get(key), rest)
            for key in ([head] if head != ANY else live)
            if key in live
        }
        return {**live, **touched}
    return {key: value for key, value in live.items() if key in ours or head not in (ANY, key)}


def _item(item: Any, sent: Any, path: Path) -> Any:
    return _without(item, sent, path) if path else item


def _pairs(live: list[Any], sent: Any) -> Iterator[tuple[Any, Any]]:
    """Each item with the one we send (None: we send none): by name, else by place."""
    ours = sent if isinstance(sent, list) else []
    if all(isinstance(item, dict) and "name" in item for item in [*live, *ours]):
        named = {item["name"]: item for item in ours}
        yield from ((item, named.get(item["name"])) for item in live)
        return
    yield from (
        (item, ours[place] if place < len(ours) else None) for place, item in enumerate(live)
    )


def _difference(live: Body, left: Body) -> Iterator[tuple[str, Any]]:
    for key, value in live.items():
        if key not in left:
            yield key, None
        elif isinstance(value, dict) and value != left[key]:
            yield key, dict(_difference(value, left[key]))
        elif value != left[key]:
            yield key, left[key]
