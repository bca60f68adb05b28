"""The environment and arguments of a container, from its pod and the Secrets and ConfigMaps it
refers to.

Order and expansion as in the kubelet: the image's variables, then the container's `env` in order,
each of which may use those before it as `$(NAME)`; `$$(NAME)` stays as `$(NAME)`.
"""

import base64
import re
from collections.abc import Iterator, Mapping

from aimlab.kinds import Body

Source = tuple[str, str]
"""Kind (Secret or ConfigMap) and name, in the pod's namespace."""

_REFERENCE = re.compile(r"\$(\$|\(([-A-Za-z0-9._]+)\))")
_KEYS = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}


class ConfigError(Exception):
    """The container cannot be configured; the message is the kubelet's
    (CreateContainerConfigError)."""


def sources_of(container: Body) -> Iterator[Source]:
    """The objects whose data the container's environment needs."""
    for variable in container.get("env") or []:
        for field, kind in _KEYS.items():
            if field in variable.get("valueFrom", {}):
                yield kind, variable["valueFrom"][field]["name"]


def resolve(
    pod: Body, container: Body, sources: Mapping[Source, Body | None], *, pod_ip: str
) -> dict[str, str]:
    """The variables of the container. Raises ConfigError for a missing object or key that is not
    optional."""
    values: dict[str, str] = {}
    for variable in container.get("env") or []:
        reference = variable.get("valueFrom")
        value = (
            _resolve_reference(reference, pod, sources, pod_ip)
            if reference
            else expand(variable.get("value") or "", values)
        )
        if value is not None:
            values[variable["name"]] = value
    return values


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the value of NAME; unknown names stay as written."""

    def substitute(found: re.Match[str]) -> str:
        return "$" if found[1] == "$" else values.get(found[2], found[0])

    return _REFERENCE.sub(substitute, text)


def _resolve_reference(
    reference: Body, pod: Body, sources: Mapping[Source, Body | None], pod_ip: str
) -> str | None:
    for field, kind in _KEYS.items():
        if field in reference:
            return _key_of(kind, reference[field], pod["metadata"]["namespace"], sources)
    if "fieldRef" in reference:
        return field_of(pod, reference["fieldRef"]["fieldPath"], pod_ip)
    raise ConfigError(f"the laptop cluster has no value from {', '.join(reference)}")


def _key_of(
    kind: str, selector: Body, namespace: str, sources: Mapping[Source, Body | None]
) -> str | None:
    name, key = selector["name"], selector["key"]
    body = sources.get((kind, name))
    data = (body or {}).get("data") or {}
    if key in data:
        return base64.b64decode(data[key]).decode() if kind == "Secret" else str(data[key])
    if selector.get("optional"):
        return None
    raise ConfigError(
        f'{kind.lower()} "{name}" not found'
        if body is None
        else f"couldn't find key {key} in {kind} {namespace}/{name}"
    )


def field_of(pod: Body, path: str, pod_ip: str = "") -> str:
    """The downward API's plain fields and single labels and annotations. Raises ConfigError.
    Volumes have no status fields, so no `pod_ip`."""
    if path == "status.podIP":
        return pod_ip
    single = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if single:
        return str(pod["metadata"].get(single[1], {}).get(single[2], ""))
    value: object = pod
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, str):
        raise ConfigError(f"the laptop cluster has no pod field {path}")
    return value
