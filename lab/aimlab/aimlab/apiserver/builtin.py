"""Defaults, resets and validation of built-in kinds, as far as the recorded answers and the lab
need them. Pure.

`fill` runs on every write before validation, `create` once. `validate` names what is wrong with a
new or changed object.
"""

import re
from base64 import b64encode
from ipaddress import ip_address

from aimlab.apiserver import events, immutable, limits, quantity
from aimlab.apiserver.errors import Cause
from aimlab.apiserver.names import bad_labels
from aimlab.apiserver.objects import Obj, clone, dig, meta, same

PVC_PROTECTION, PV_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
PROTECTION = {"PersistentVolumeClaim": PVC_PROTECTION, "PersistentVolume": PV_PROTECTION}
GATED: Obj = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
    "lastProbeTime": None,
}
JOB_LABELS = (
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
)


def fill(obj: Obj) -> None:
    """Defaults that appear whenever a built-in object is written; the same again on its own
    result."""
    match obj["kind"]:
        case "Pod":
            _pod_spec(obj.setdefault("spec", {}), alone=True)
        case "Job":
            _job(obj)
        case "Deployment" | "ReplicaSet" | "StatefulSet":
            _workload(obj)
        case "PersistentVolumeClaim" | "PersistentVolume":
            obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
            _amounts(obj["spec"].get("resources") or obj["spec"])
            if obj["kind"] == "PersistentVolume":
                obj["spec"].setdefault("persistentVolumeReclaimPolicy", "Retain")
                if isinstance(obj["spec"].get("hostPath"), dict):
                    obj["spec"]["hostPath"].setdefault("type", "")
        case "Secret":
            _secret(obj)
        case "Service":
            _service(obj.setdefault("spec", {}))
        case "StorageClass":
            obj.setdefault("reclaimPolicy", "Delete")
            obj.setdefault("volumeBindingMode", "Immediate")
        case "Namespace":
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            meta(obj).setdefault("labels", {})["kubernetes.io/metadata.name"] = meta(obj).get(
                "name", ""
            )
        case "Event":
            events.fill(obj)
        case "LimitRange":
            limits.fill(obj)


MICRO_TIMES = {
    "Lease": ("spec.acquireTime", "spec.renewTime"),
    "Event": ("eventTime", "series.lastObservedTime"),
}


MICRO_TIME_PARTS = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d": "2006",
    r"\.\d{6}": ".000000",
    r"(Z|[+-]\d\d:\d\d)$": "Z07:00",
}
"""Patterns of its parts in their order, each with what Go calls it."""


def unreadable(obj: Obj) -> str:
    """Why a real server cannot decode the object: a MicroTime has six digits of a second. Empty
    where it can."""
    for path in MICRO_TIMES.get(obj["kind"], ()):
        value = dig(obj, *path.split("."))
        if not isinstance(value, str):
            continue
        rest = value
        for pattern, name in MICRO_TIME_PARTS.items():
            found = re.match(pattern, rest)
            if found is None:
                return (
                    f'parsing time "{value}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse'
                    f' "{rest}" as "{name}"'
                )
            rest = rest[found.end() :]
    return ""


STATUS_AT_START: dict[str, Obj] = {
    "Pod": {"phase": "Pending", "qosClass": "BestEffort"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "PersistentVolume": {"phase": "Pending"},
    "Namespace": {"phase": "Active"},
    "Job": {},
    "Deployment": {},
    "ReplicaSet": {"replicas": 0},
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "PodDisruptionBudget": dict.fromkeys(
        ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"), 0
    ),
    "ResourceQuota": {},
    "Service": {"loadBalancer": {}},
}


def create(obj: Obj, now: str) -> None:
    """What happens once, when an object with a uid is about to be stored for the first time."""
    if obj["kind"] in STATUS_AT_START:
        obj["status"] = clone(STATUS_AT_START[obj["kind"]])
    match obj["kind"]:
        case "PersistentVolumeClaim" | "PersistentVolume":
            protection = PROTECTION[obj["kind"]]
            finalizers = meta(obj).setdefault("finalizers", [])
            if protection not in finalizers:
                finalizers.append(protection)
            if obj["kind"] == "PersistentVolume":
                obj["status"]["lastPhaseTransitionTime"] = now
        case "Job":
            _job_identity(obj)
        case "Pod":
            obj["status"]["qosClass"] = _qos(obj["spec"])
            if obj["spec"].get("schedulingGates"):
                obj["status"]["conditions"] = [GATED | {"lastTransitionTime": now}]


def _pod_spec(spec: Obj, *, alone: bool) -> None:
    for name, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
    ):
        spec.setdefault(name, value)
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if alone:
        spec.setdefault("enableServiceLinks", True)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        spec.setdefault("priority", 0)
        spec.setdefault("serviceAccountName", "default")
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if isinstance(volume.get(source), dict):
                volume[source].setdefault("defaultMode", 420)
        if not volume.keys() - {"name"}:
            volume["emptyDir"] = {}


def _container(container: Obj) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    latest = ":" not in str(container.get("image") or "").rsplit("/", maxsplit=1)[-1] or str(
        container.get("image")
    ).endswith(":latest")
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    _amounts(container["resources"])
    for limit, amount in (dig(container, "resources", "limits") or {}).items():
        container["resources"].setdefault("requests", {}).setdefault(limit, amount)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(probe), dict):
            _probe(container[probe])


def _amounts(holder: Obj) -> None:
    """Quantities in the form in which a server keeps them."""
    for name in ("requests", "limits", "capacity"):
        if isinstance(holder.get(name), dict):
            holder[name] = {key: quantity.canonical(amount) for key, amount in holder[name].items()}


def _probe(probe: Obj) -> None:
    for name, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        probe.setdefault(name, value)
    if isinstance(probe.get("httpGet"), dict):
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _qos(spec: Obj) -> str:
    resources = [container.get("resources") or {} for container in spec.get("containers") or []]
    if not any(found.get("requests") or found.get("limits") for found in resources):
        return "BestEffort"
    whole = all(
        (found.get("limits") or {}).keys() >= {"cpu", "memory"}
        and found["limits"] == found.get("requests", found["limits"])
        for found in resources
    )
    return "Guaranteed" if whole else "Burstable"


def _template(obj: Obj) -> Obj:
    template: Obj = obj.setdefault("spec", {}).setdefault("template", {})
    _pod_spec(template.setdefault("spec", {}), alone=False)
    return template


def _job(obj: Obj) -> None:
    template = _template(obj)
    spec = obj["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    if not meta(obj).get("labels") and dig(template, "metadata", "labels"):
        meta(obj)["labels"] = clone(template["metadata"]["labels"])


def _job_identity(obj: Obj) -> None:
    """The labels by which a Job finds its Pods. A Job whose labels were taken from its template
    gets them too."""
    metadata, spec = meta(obj), obj["spec"]
    if spec["manualSelector"]:
        return
    labels = meta(spec["template"]).setdefault("labels", {})
    shared = not metadata.get("labels") or same(metadata.get("labels"), labels)
    labels |= dict(zip(JOB_LABELS, (metadata["uid"], metadata["name"]) * 2, strict=True))
    if shared:
        metadata["labels"] = clone(labels)
    spec["selector"] = {"matchLabels": {JOB_LABELS[0]: metadata["uid"]}}


def _workload(obj: Obj) -> None:
    _template(obj)
    spec = obj["spec"]
    spec.setdefault("replicas", 1)
    if obj["kind"] == "Deployment":
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault(
            "strategy",
            {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
        )
    if obj["kind"] == "StatefulSet":
        keep = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        keep |= {"whenDeleted": "Retain", "whenScaled": "Retain"} | keep
        for template in spec.get("volumeClaimTemplates") or []:
            template |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
            template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
            _amounts(template["spec"].get("resources") or {})
            template.setdefault("status", {"phase": "Pending"})
        spec.setdefault("podManagementPolicy", "OrderedReady")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault(
            "updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
        )


def _secret(obj: Obj) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {name: b64encode(str(value).encode()).decode() for name, value in plain.items()}
        obj["data"] = (obj.get("data") or {}) | encoded


def _service(spec: Obj) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec.get("clusterIP"):
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("ipFamilies", ["IPv4"])
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def validate(obj: Obj, old: Obj | None) -> list[Cause]:
    """What a real API server would not take, in an object after `fill`."""
    found = [] if old is None else immutable.forbidden_changes(obj, old)
    match obj["kind"]:
        case "Job" if old is None:
            return _validate_job(obj)
        case "Pod" if old is None:
            return list(_validate_pod(obj["spec"], "spec", ("Always", "OnFailure", "Never")))
        case "PersistentVolumeClaim" if not dig(obj, "spec", "accessModes"):
            return [
                Cause(
                    "spec.accessModes",
                    "FieldValueRequired",
                    "Required value: at least 1 access mode is required",
                )
            ]
        case "Deployment" | "ReplicaSet" | "StatefulSet":
            return [*_validate_selector(obj), *_validate_strategy(obj), *found]
        case "Service":
            return [*_validate_ports(obj), *found]
        case "PodDisruptionBudget":
            return _validate_budget(obj)
        case _:
            return found


def _validate_selector(obj: Obj) -> list[Cause]:
    """A workload finds its own pods, by matchLabels alone here."""
    selector = dig(obj, "spec", "selector")
    labels = dig(obj, "spec", "template", "metadata", "labels") or {}
    match_labels = dig(selector, "matchLabels") or {}
    causes = [] if selector else [Cause("spec.selector", "FieldValueRequired", "Required value")]
    if not selector or any(labels.get(key) != value for key, value in match_labels.items()):
        message = (
            f"Invalid value: {immutable.as_json(labels)}: `selector` does not match template"
            " `labels`"
        )
        causes.append(Cause("spec.template.metadata.labels", "FieldValueInvalid", message))
    return causes


def _validate_strategy(obj: Obj) -> list[Cause]:
    strategy = dig(obj, "spec", "strategy") or {}
    if strategy.get("type") != "Recreate" or not strategy.get("rollingUpdate"):
        return []
    message = "Forbidden: may not be specified when strategy `type` is 'Recreate'"
    return [Cause("spec.strategy.rollingUpdate", "FieldValueForbidden", message)]


def _validate_ports(obj: Obj) -> list[Cause]:
    ports = dig(obj, "spec", "ports") or []
    unnamed = (
        [index for index, port in enumerate(ports) if not port.get("name")]
        if len(ports) > 1
        else []
    )
    return [
        Cause(f"spec.ports[{index}].name", "FieldValueRequired", "Required value")
        for index in unnamed
    ]


def _validate_budget(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is None or spec.get("maxUnavailable") is None:
        return []
    fields = ("minAvailable", "selector", "maxUnavailable", "unhealthyPodEvictionPolicy")
    shown = immutable.as_json({f"{name[0].upper()}{name[1:]}": spec.get(name) for name in fields})
    return [
        Cause(
            "spec",
            "FieldValueInvalid",
            f"Invalid value: {shown}: minAvailable and maxUnavailable cannot be both set",
        )
    ]


def loopback_endpoints(obj: Obj) -> list[Cause]:
    """How a real API server rejects endpoints on loopback addresses."""
    if obj["kind"] != "EndpointSlice" or obj.get("addressType") == "FQDN":
        return []
    message = 'Invalid value: "{}": may not be in the loopback range (127.0.0.0/8, ::1/128)'
    return [
        Cause(
            f"endpoints[{number}].addresses[{index}]", "FieldValueInvalid", message.format(address)
        )
        for number, endpoint in enumerate(obj.get("endpoints") or ())
        for index, address in enumerate(endpoint["addresses"])
        if ip_address(address).is_loopback
    ]


def _validate_job(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    found = bad_labels(dig(spec, "template", "metadata", "labels"), "spec.template.labels")
    if spec["template"]["spec"].get("restartPolicy") not in ("OnFailure", "Never"):
        message = 'Required value: valid values: "OnFailure", "Never"'
        found.append(Cause("spec.template.spec.restartPolicy", "FieldValueRequired", message))
    return [
        *found,
        *_validate_pod(
            spec["template"]["spec"], "spec.template.spec", ("Always", "OnFailure", "Never")
        ),
    ]


def _validate_pod(spec: Obj, path: str, policies: tuple[str, ...]) -> list[Cause]:
    if not spec.get("containers"):
        return [Cause(f"{path}.containers", "FieldValueRequired", "Required value")]
    found = [
        Cause(f"{path}.containers[{index}].{name}", "FieldValueRequired", "Required value")
        for index, container in enumerate(spec["containers"])
        for name in ("name", "image")
        if not container.get(name)
    ]
    if spec["restartPolicy"] not in policies:
        choices = ", ".join(f'"{policy}"' for policy in policies)
        message = f'Unsupported value: "{spec["restartPolicy"]}": supported values: {choices}'
        found.append(Cause(f"{path}.restartPolicy", "FieldValueNotSupported", message))
    return found
