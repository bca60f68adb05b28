"""What a real API server fills in, resets and refuses for its built-in kinds, as far as the recorded answers and the lab need it. Pure.

`fill` runs on every write before validation, `create` once, `refused` says what is wrong with a new or changed object.
"""

from base64 import b64encode
from decimal import Decimal
from ipaddress import ip_address

from aimlab.apiserver import events, quantity
from aimlab.apiserver.errors import Cause
from aimlab.apiserver.names import bad_labels
from aimlab.apiserver.objects import Json, Obj, clone, dig, meta, same

PVC_PROTECTION = "kubernetes.io/pvc-protection"
JOB_LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")


def fill(obj: Obj) -> None:
    """Defaults that appear whenever a built-in object is written; the same again on its own result."""
    match obj["kind"]:
        case "Pod":
            _pod_spec(obj.setdefault("spec", {}), alone=True)
        case "Job":
            _job(obj)
        case "Deployment" | "ReplicaSet" | "StatefulSet":
            _workload(obj)
        case "PersistentVolumeClaim" | "PersistentVolume":
            obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
            if obj["kind"] == "PersistentVolume":
                obj["spec"].setdefault("persistentVolumeReclaimPolicy", "Retain")
        case "Secret":
            _secret(obj)
        case "Service":
            _service(obj.setdefault("spec", {}))
        case "StorageClass":
            obj.setdefault("reclaimPolicy", "Delete")
            obj.setdefault("volumeBindingMode", "Immediate")
        case "Namespace":
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            meta(obj).setdefault("labels", {})["kubernetes.io/metadata.name"] = meta(obj).get("name", "")
        case "Event":
            events.fill(obj)


STATUS_AT_START: dict[str, Obj] = {
    "Pod": {"phase": "Pending", "qosClass": "BestEffort"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "PersistentVolume": {"phase": "Pending"},
    "Namespace": {"phase": "Active"},
    "Job": {},
    "Deployment": {},
    "ReplicaSet": {"replicas": 0},
    "StatefulSet": {"replicas": 0},
    "PodDisruptionBudget": {},
    "Service": {"loadBalancer": {}},
}


def create(obj: Obj) -> None:
    """What happens once, when an object with a uid is about to be stored for the first time."""
    if obj["kind"] in STATUS_AT_START:
        obj["status"] = clone(STATUS_AT_START[obj["kind"]])
    match obj["kind"]:
        case "PersistentVolumeClaim":
            finalizers = meta(obj).setdefault("finalizers", [])
            if PVC_PROTECTION not in finalizers:
                finalizers.append(PVC_PROTECTION)
        case "Job":
            _job_identity(obj)
        case "Pod":
            obj["status"]["qosClass"] = _qos(obj["spec"])


def _pod_spec(spec: Obj, *, alone: bool) -> None:
    for name, value in (("restartPolicy", "Always"), ("dnsPolicy", "ClusterFirst"), ("schedulerName", "default-scheduler")):
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
    latest = ":" not in str(container.get("image") or "").rsplit("/", maxsplit=1)[-1] or str(container.get("image")).endswith(":latest")
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for limit, amount in (dig(container, "resources", "limits") or {}).items():
        container["resources"].setdefault("requests", {}).setdefault(limit, amount)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(probe), dict):
            _probe(container[probe])


def _probe(probe: Obj) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        probe.setdefault(name, value)
    if isinstance(probe.get("httpGet"), dict):
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _qos(spec: Obj) -> str:
    resources = [container.get("resources") or {} for container in spec.get("containers") or []]
    if not any(found.get("requests") or found.get("limits") for found in resources):
        return "BestEffort"
    whole = all(
        (found.get("limits") or {}).keys() >= {"cpu", "memory"} and found["limits"] == found.get("requests", found["limits"]) for found in resources
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
    """The labels by which a Job finds its Pods. A Job whose labels were taken from its template gets them too."""
    metadata, spec = meta(obj), obj["spec"]
    if spec["manualSelector"]:
        return
    labels = meta(spec["template"]).setdefault("labels", {})
    shared = same(metadata.get("labels"), labels)
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
        spec.setdefault("strategy", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    if obj["kind"] == "StatefulSet":
        spec.setdefault("podManagementPolicy", "OrderedReady")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})


def _secret(obj: Obj) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {name: b64encode(str(value).encode()).decode() for name, value in plain.items()}
        obj["data"] = (obj.get("data") or {}) | encoded


def _service(spec: Obj) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("ipFamilies", ["IPv4"])
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


JOB_IMMUTABLE = ("completionMode", "completions", "podFailurePolicy", "selector", "successPolicy", "template")


def refused(obj: Obj, old: Obj | None) -> list[Cause]:
    """What a real API server would not take, in an object after `fill`."""
    match obj["kind"]:
        case "Job":
            return _refused_job(obj, old)
        case "Pod":
            return list(_refused_pod(obj["spec"], "spec", ("Always", "OnFailure", "Never"), old))
        case "PersistentVolumeClaim" if old is not None:
            return _refused_claim(obj, old)
        case "ConfigMap" | "Secret" if old is not None and old.get("immutable"):
            return [
                Cause(name, "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")
                for name in ("immutable", "data", "binaryData")
                if not same(obj.get(name), old.get(name))
            ]
        case "PersistentVolumeClaim" if not dig(obj, "spec", "accessModes"):
            return [Cause("spec.accessModes", "FieldValueRequired", "Required value: at least 1 access mode is required")]
        case "StorageClass" if old is not None:
            return [
                Cause(name, "FieldValueForbidden", "Forbidden: updates to provisioner and parameters are forbidden.")
                for name in ("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode")
                if not same(obj.get(name), old.get(name))
            ]
        case _:
            return []


def loopback_endpoints(obj: Obj) -> list[Cause]:
    """What a real API server says of endpoints on loopback addresses."""
    if obj["kind"] != "EndpointSlice" or obj.get("addressType") == "FQDN":
        return []
    words = 'Invalid value: "{}": may not be in the loopback range (127.0.0.0/8, ::1/128)'
    return [
        Cause(f"endpoints[{number}].addresses[{index}]", "FieldValueInvalid", words.format(address))
        for number, endpoint in enumerate(obj.get("endpoints") or ())
        for index, address in enumerate(endpoint["addresses"])
        if ip_address(address).is_loopback
    ]


def _refused_job(obj: Obj, old: Obj | None) -> list[Cause]:
    spec = obj["spec"]
    if old is not None:
        return [
            Cause(f"spec.{name}", "FieldValueInvalid", "Invalid value: field is immutable")
            for name in JOB_IMMUTABLE
            if not same(spec.get(name), old["spec"].get(name))
        ]
    found = bad_labels(dig(spec, "template", "metadata", "labels"), "spec.template.labels")
    if spec["template"]["spec"].get("restartPolicy") not in ("OnFailure", "Never"):
        message = 'Required value: valid values: "OnFailure", "Never"'
        found.append(Cause("spec.template.spec.restartPolicy", "FieldValueRequired", message))
    return [*found, *_refused_pod(spec["template"]["spec"], "spec.template.spec", ("Always", "OnFailure", "Never"), old)]


def _refused_pod(spec: Obj, path: str, policies: tuple[str, ...], old: Obj | None) -> list[Cause]:
    if old is not None:
        return []
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


def _refused_claim(obj: Obj, old: Obj) -> list[Cause]:
    def rest(claim: Obj) -> Obj:
        spec: Obj = clone(claim["spec"])
        for name in ("volumeName", "storageClassName", "volumeAttributesClassName"):
            if not old["spec"].get(name) or name == "volumeAttributesClassName":
                spec.pop(name, None)
        if dig(old, "status", "phase") == "Bound":
            (spec.get("resources") or {}).pop("requests", None)
        return spec

    words = "Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
    if not same(rest(obj), rest(old)):
        return [Cause("spec", "FieldValueForbidden", words)]
    if _size(obj) < _size(old):
        message = "Forbidden: field can not be less than status.capacity"
        return [Cause("spec.resources.requests.storage", "FieldValueForbidden", message)]
    return []


def _size(claim: Json) -> Decimal:
    return quantity.parse(str(dig(claim, "spec", "resources", "requests", "storage") or "0"))
