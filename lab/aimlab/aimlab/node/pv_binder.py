"""Gives volume claims a folder each, as a dynamic provisioner and the volume controllers do.

Classes of this provisioner: `lab` (the default, binds at once) and `lab-wait` (binds once a pod
that uses the claim is scheduled). A claim without a class gets the default one; a claim of an
unknown class stays Pending. A claim stays while pods use it (finalizer
kubernetes.io/pvc-protection, which the API server sets); its volume and folder are deleted with it.
"""

from datetime import datetime
from pathlib import Path

from aimlab.apiserver.quantity import parse
from aimlab.controller_loop import Create, ReconcileResult, RemoveFolder, Write, delete_of, patch_of
from aimlab.informer import Objects
from aimlab.kinds import VOLUME, Body, is_deleting, is_finished, phase_of, uid_of
from aimlab.node.scheduler import claims_of, is_placed
from aimschema.labels import DEFAULT_STORAGE_CLASS
from aimschema.resources import CLAIM, POD, STORAGE_CLASS

PROVISIONER = "aimlab.local/folder"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
CLAIM_PROTECTION = "kubernetes.io/pvc-protection"


def storage_class(name: str, mode: str, *, default: bool = False) -> Body:
    annotations = {"annotations": {DEFAULT_STORAGE_CLASS: "true"}} if default else {}
    head = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name} | annotations,
    }
    return head | {
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": mode,
        "allowVolumeExpansion": True,
    }


STORAGE_CLASSES = (
    storage_class("lab", "Immediate", default=True),
    storage_class("lab-wait", "WaitForFirstConsumer"),
)


def plan(state: Objects, _now: datetime, *, volumes_dir: Path) -> ReconcileResult:
    """One pass over all claims and volumes."""
    writes: list[Write] = []
    for claim in state.all(CLAIM):
        writes += claim_writes(claim, state, volumes_dir)
    for volume in state.all(VOLUME):
        writes += volume_writes(volume, state)
    return ReconcileResult(writes)


def claim_writes(claim: Body, state: Objects, volumes_dir: Path) -> list[Write]:
    """First match wins: going, bound, without a class, not ours, waiting for a place, to be
    bound."""
    if is_deleting(claim):
        return release(claim, state)
    if phase_of(claim) in {"Bound", "Lost"}:
        volume = state.find(VOLUME, None, claim["spec"].get("volumeName", ""))
        if phase_of(claim) == "Bound" and volume is None:
            return [patch_of(CLAIM, claim, {"status": {"phase": "Lost"}}, "status")]
        return [] if volume is None else grow(claim, volume)
    if "storageClassName" not in claim["spec"]:
        default = default_class(state)
        return (
            []
            if default is None
            else [patch_of(CLAIM, claim, {"spec": {"storageClassName": default}})]
        )
    of_class = state.find(STORAGE_CLASS, None, claim["spec"]["storageClassName"])
    if of_class is None or of_class["provisioner"] != PROVISIONER:
        return []
    if of_class.get("volumeBindingMode") == "WaitForFirstConsumer" and not is_placed(claim):
        return []
    return bind(claim, state, volumes_dir)


def default_class(state: Objects) -> str | None:
    marked = (
        one
        for one in state.all(STORAGE_CLASS)
        if one["metadata"].get("annotations", {}).get(DEFAULT_STORAGE_CLASS) == "true"
    )
    return next((one["metadata"]["name"] for one in marked), None)


def bind(claim: Body, state: Objects, volumes_dir: Path) -> list[Write]:
    """The volume first, then the claim's spec, then its status: each pass does what the one
    before could not see done."""
    volume = volume_for(claim, volumes_dir)
    name = volume["metadata"]["name"]
    if state.find(VOLUME, None, name) is None:
        return [Create(VOLUME, volume)]
    if claim["spec"].get("volumeName") != name:
        annotations = {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }
        return [
            patch_of(
                CLAIM,
                claim,
                {"metadata": {"annotations": annotations}, "spec": {"volumeName": name}},
            )
        ]
    status = {
        "phase": "Bound",
        "accessModes": volume["spec"]["accessModes"],
        "capacity": volume["spec"]["capacity"],
    }
    return [patch_of(CLAIM, claim, {"status": status}, "status")]


def grow(claim: Body, volume: Body) -> list[Write]:
    """A claim that asks for more gets it: a folder has all the room there is."""
    requested = claim["spec"]["resources"]["requests"]["storage"]
    size = {"storage": requested}
    if volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) != PROVISIONER:
        return []
    writes: list[Write] = []
    if parse(str(requested)) > parse(str(volume["spec"]["capacity"]["storage"])):
        writes.append(patch_of(VOLUME, volume, {"spec": {"capacity": size}}))
    if parse(str(requested)) > parse(str(claim["status"].get("capacity", size)["storage"])):
        writes.append(patch_of(CLAIM, claim, {"status": {"capacity": size}}, "status"))
    return writes


def volume_for(claim: Body, volumes_dir: Path) -> Body:
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{metadata['uid']}"
    claim_reference = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "claimRef": claim_reference | {"uid": metadata["uid"]},
            "hostPath": {"path": str(volumes_dir / name), "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec["storageClassName"],
        },
    }


def release(claim: Body, state: Objects) -> list[Write]:
    """A claim that is being deleted goes once no live pod uses it."""
    metadata = claim["metadata"]
    finalizers = metadata.get("finalizers", [])
    in_use = any(
        metadata["name"] in claims_of(pod) and not is_finished(pod)
        for pod in state.all(POD, metadata["namespace"])
    )
    if in_use or CLAIM_PROTECTION not in finalizers:
        return []
    return [
        patch_of(
            CLAIM,
            claim,
            {"metadata": {"finalizers": [name for name in finalizers if name != CLAIM_PROTECTION]}},
        )
    ]


def volume_writes(volume: Body, state: Objects) -> list[Write]:
    """A volume of the lab is Bound while its PVC exists, and is deleted after it with its
    folder."""
    if volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) != PROVISIONER:
        return []
    reference = volume["spec"]["claimRef"]
    claim = state.find(CLAIM, reference["namespace"], reference["name"])
    if claim is not None and uid_of(claim) == reference["uid"]:
        return (
            []
            if phase_of(volume) == "Bound"
            else [patch_of(VOLUME, volume, {"status": {"phase": "Bound"}}, "status")]
        )
    without_finalizers = (
        [patch_of(VOLUME, volume, {"metadata": {"finalizers": []}})]
        if volume["metadata"].get("finalizers")
        else []
    )
    return [
        *without_finalizers,
        delete_of(VOLUME, volume),
        RemoveFolder(Path(volume["spec"]["hostPath"]["path"])),
    ]
