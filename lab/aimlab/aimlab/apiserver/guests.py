"""What other people's clusters do to new pods and Jobs, each for namespaces that ask for it as they
would there: the injectors of Istio and Linkerd, OpenShift's security constraints, Kueue. Pure.

    namespace                                            what it does label istio-injection: enabled
    a sidecar, unless the pod says inject "false" annotation linkerd.io/inject: enabled
    a sidecar, unless the pod is annotated disabled annotation openshift.io/sa.scc.uid-range: A/N
    restricted-v2: uids and groups of A to A+N-1 label lab.aim/kueue: enabled
    what has a queue-name waits for its queue

Kueue has no such label; where it is installed its webhook sees all namespaces. Its part of letting
something go is the test's: take `suspend` or the gate away.
"""

from collections.abc import Iterator

from aimlab.apiserver.errors import ApiError, object_details
from aimlab.apiserver.objects import Obj, dig, meta

ISTIO, INJECT = "istio-injection", "sidecar.istio.io/inject"
LINKERD = "linkerd.io/inject"
SIDECAR_IMAGE = "lab.aim/istio-proxy:1"
"""The lab's node runs it without an entry in its table of images: it waits to be ended."""
SIDECAR: Obj = {"name": "istio-proxy", "image": SIDECAR_IMAGE}
UID_RANGE = "openshift.io/sa.scc.uid-range"
SCC = "restricted-v2"
KUEUE = "lab.aim/kueue"
QUEUE_NAME = "kueue.x-k8s.io/queue-name"
QUEUE_GATE = "kueue.x-k8s.io/admission"


def complete(namespace: Obj, obj: Obj) -> None:
    """Adds to a new Pod or Job what these would add. ApiError 403 for a uid out of its range."""
    if obj["kind"] == "Job":
        _suspend(namespace, obj)
    elif obj["kind"] == "Pod":
        _gate(namespace, obj)
        _inject(namespace, obj)
        _constrain(namespace, obj)


def _label(obj: Obj, name: str) -> str:
    return str((dig(obj, "metadata", "labels") or {}).get(name, ""))


def _annotation(obj: Obj, name: str) -> str:
    return str((dig(obj, "metadata", "annotations") or {}).get(name, ""))


# --- Kueue ---


def _is_queued(namespace: Obj, obj: Obj) -> bool:
    return _label(namespace, KUEUE) == "enabled" and bool(_label(obj, QUEUE_NAME))


def _suspend(namespace: Obj, job: Obj) -> None:
    if _is_queued(namespace, job):
        job["spec"]["suspend"] = True


def _gate(namespace: Obj, pod: Obj) -> None:
    """A Job's pod has waited with its Job."""
    owned = any(
        owner.get("kind") == "Job" for owner in dig(pod, "metadata", "ownerReferences") or []
    )
    if _is_queued(namespace, pod) and not owned:
        pod["spec"].setdefault("schedulingGates", []).append({"name": QUEUE_GATE})


# --- Istio and Linkerd ---


def _inject(namespace: Obj, pod: Obj) -> None:
    wish = _label(pod, INJECT) or _annotation(pod, INJECT)
    istio = _label(namespace, ISTIO) == "enabled" and wish != "false"
    linkerd = (
        _annotation(namespace, LINKERD) == "enabled" and _annotation(pod, LINKERD) != "disabled"
    )
    if istio or linkerd:
        pod["spec"]["containers"].append(dict(SIDECAR))
        meta(pod).setdefault("annotations", {})["sidecar.istio.io/status"] = "{}"


# --- OpenShift ---


def _constrain(namespace: Obj, pod: Obj) -> None:
    text = _annotation(namespace, UID_RANGE)
    if not text:
        return
    first, _, size = text.partition("/")
    allowed = range(int(first), int(first) + int(size or 1))
    if wrong := list(_out_of_range(pod["spec"], allowed)):
        name = pod["metadata"]["name"]
        why = "unable to validate against any security context constraint"
        text = f'pods "{name}" is forbidden: {why}: [{", ".join(wrong)}]'
        raise ApiError(403, "Forbidden", text, object_details("", "pods", name))
    _fill_in(pod, allowed.start)


def _out_of_range(spec: Obj, allowed: range) -> Iterator[str]:
    group = dig(spec, "securityContext", "fsGroup")
    if group is not None and group not in allowed:
        value = f"[]int64{{{group}}}: {group} is not an allowed group"
        yield f"provider {SCC}: .spec.securityContext.fsGroup: Invalid value: {value}"
    span = f"must be in the ranges: [{allowed.start}, {allowed.stop - 1}]"
    user = dig(spec, "securityContext", "runAsUser")
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or []):
            own = dig(container, "securityContext", "runAsUser")
            effective = user if own is None else own
            if effective is not None and effective not in allowed:
                field = f".{kind}[{index}].runAsUser"
                yield f"provider {SCC}: {field}: Invalid value: {effective}: {span}"


def _fill_in(pod: Obj, uid: int) -> None:
    context = pod["spec"].setdefault("securityContext", {})
    context.setdefault("fsGroup", uid)
    context.setdefault("seccompProfile", {"type": "RuntimeDefault"})
    for kind in ("initContainers", "containers"):
        for container in pod["spec"].get(kind) or []:
            own = container.setdefault("securityContext", {})
            own.setdefault("runAsUser", context.get("runAsUser", uid))
            own.setdefault("runAsNonRoot", True)
            own.setdefault("allowPrivilegeEscalation", False)
            own.setdefault("capabilities", {"drop": ["ALL"]})
    meta(pod).setdefault("annotations", {})["openshift.io/scc"] = SCC
