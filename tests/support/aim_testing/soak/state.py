"""The objects of a cluster as plain dicts, with the questions that operations and oracle ask."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aimschema.labels import KSERVE_ISVC_LABEL
from aimschema.resources import POD, Key, Resource

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """`objects` is read only."""

    objects: Mapping[Key, Body]

    def get(self, kind: Resource, namespace: str | None, name: str) -> Body | None:
        return self.objects.get(Key(kind.kind, namespace, name))

    def live(self, kind: Resource, namespace: str | None, name: str) -> Body | None:
        """The object unless it is being deleted."""
        found = self.get(kind, namespace, name)
        return None if found is None or is_deleting(found) else found

    def all(self, kind: Resource, namespace: str | None = None) -> Iterator[Body]:
        """Of one namespace, or of all; ordered by name."""
        keys = [key for key in self.objects if key.kind == kind.kind]
        for key in sorted(keys, key=lambda key: (key.namespace or "", key.name)):
            if namespace in {None, key.namespace}:
                yield self.objects[key]

    def owned(self, owner: Body, kind: Resource) -> list[Body]:
        uid = owner["metadata"]["uid"]
        return [body for body in self.all(kind) if uid in owners(body)]

    def predictor_pods(self, service: Body) -> list[Body]:
        """The pods of a service's InferenceService that have not ended, also those being
        deleted."""
        metadata = service["metadata"]
        return [
            pod
            for pod in self.all(POD, metadata["namespace"])
            if (pod["metadata"].get("labels") or {}).get(KSERVE_ISVC_LABEL) == metadata["name"]
            and phase(pod) not in {"Succeeded", "Failed"}
        ]


def owners(body: Body) -> list[str]:
    return [reference["uid"] for reference in body["metadata"].get("ownerReferences") or ()]


def is_deleting(body: Body) -> bool:
    return "deletionTimestamp" in body["metadata"]


def phase(body: Body) -> str | None:
    found: str | None = (body.get("status") or {}).get("phase")
    return found


def conditions(body: Body) -> dict[str, Body]:
    found = (body.get("status") or {}).get("conditions") or ()
    return {condition["type"]: condition for condition in found}


def holds(body: Body, type_: str) -> bool:
    return bool(conditions(body).get(type_, {}).get("status") == "True")


def annotation(body: Body, name: str) -> str:
    return str((body["metadata"].get("annotations") or {}).get(name, ""))


def claims_of(pod: Body) -> set[str]:
    volumes = pod.get("spec", {}).get("volumes") or ()
    names = ((volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in volumes)
    return {str(name) for name in names if name}


def secrets_of(pod: Body) -> set[str]:
    """Names of the Secrets that its containers take variables from."""
    variables = [v for c in pod.get("spec", {}).get("containers") or () for v in c.get("env") or ()]
    found = (((v.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name") for v in variables)
    return {str(name) for name in found if name}


def where(body: Body) -> str:
    metadata = body["metadata"]
    return f"{body['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"
