"""The folders behind a Pod's volumes."""

import base64
from collections.abc import Mapping
from pathlib import Path

from aimlab.informer import Objects
from aimlab.kinds import VOLUME, Body
from aimlab.node.environment import Source, field_of
from aimschema.resources import CLAIM

FILE_KINDS = {"configMap": ("ConfigMap", "name"), "secret": ("Secret", "secretName")}


class NotReadyError(Exception):
    """A volume cannot be mounted yet; the message has the reason."""


def file_sources(pod: Body) -> list[Source]:
    """The ConfigMaps and Secrets that the pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return [
        (kind, volume[field][key])
        for volume in volumes
        for field, (kind, key) in FILE_KINDS.items()
        if field in volume
    ]


def make_folders(
    pod: Body, state: Objects, contents: Mapping[Source, Body | None], pod_dir: Path
) -> dict[str, Path]:
    """A folder for each volume of the pod, by the volume's name, with its files in it. Raises
    NotReadyError."""
    return {
        volume["name"]: _folder(volume, pod, state, contents, pod_dir)
        for volume in pod["spec"].get("volumes") or []
    }


def _folder(
    volume: Body, pod: Body, state: Objects, contents: Mapping[Source, Body | None], pod_dir: Path
) -> Path:
    if "persistentVolumeClaim" in volume:
        folder = _claimed_folder(
            volume["persistentVolumeClaim"]["claimName"], pod["metadata"]["namespace"], state
        )
    else:
        folder = pod_dir / "volumes" / volume["name"]
    folder.mkdir(parents=True, exist_ok=True)
    for field, (kind, key) in FILE_KINDS.items():
        if field in volume:
            _write_files(volume[field], kind, volume[field][key], contents, folder)
    for item in volume.get("downwardAPI", {}).get("items") or []:
        (folder / item["path"]).write_text(field_of(pod, item["fieldRef"]["fieldPath"]))
    return folder


def _claimed_folder(name: str, namespace: str, state: Objects) -> Path:
    claim = state.find(CLAIM, namespace, name)
    volume = (
        state.find(VOLUME, None, claim["spec"].get("volumeName", "")) if claim is not None else None
    )
    if volume is None:
        raise NotReadyError(f"persistentvolumeclaim {namespace}/{name} has no volume")
    return Path(volume["spec"]["hostPath"]["path"])


def _write_files(
    source: Body, kind: str, name: str, contents: Mapping[Source, Body | None], folder: Path
) -> None:
    body = contents.get((kind, name))
    if body is None and not source.get("optional"):
        raise NotReadyError(f'{kind.lower()} "{name}" not found')
    data: dict[str, str] = (body or {}).get("data") or {}
    for item in source.get("items") or [{"key": key, "path": key} for key in data]:
        text = data.get(item["key"])
        if text is None:
            raise NotReadyError(f"references non-existent {kind.lower()} key: {item['key']}")
        content = base64.b64decode(text) if kind == "Secret" else text.encode()
        path = folder / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
