"""Chooses the render version of an InferenceService, so that an upgrade of the control plane
restarts nothing. Pure.

An object without the annotation `aim.silogen.ai/render` has version 1. A new one gets the newest
version. An existing one moves to the newest only in an apply that changes its pod template anyway,
or if its AIMService requests it: the annotation itself reaches the pod template.
"""

from typing import Any

from aim_deployer.modes import Mode
from aim_deployer.render import LATEST, inference_service
from aim_deployer.resolve import ResolvedService
from aimcontroller.projection import KubeObject
from aimschema.labels import ANNOTATION_PASSED, ANNOTATION_RENDER, KSERVE_STOP
from aimschema.propagation import from_text, passed_on
from aimschema.published import HASHES, without_literals
from aimschema.quantities import exact

Body = dict[str, Any]
REQUESTED = "latest"
NOT_OF_THE_POD = frozenset({"minReplicas", "maxReplicas", "deploymentStrategy"})


def render_versioned(
    parts: ResolvedService, existing: KubeObject | None, mode: Mode, *, cached: bool
) -> Body:
    """The InferenceService in its render version, with the labels that its service passes on. A
    label reaches the pod template as well, so that an existing object keeps those it has."""
    passed = passed_on(parts.service.labels, parts.config)
    newest = inference_service(parts, cached=cached, mode=mode, passed=passed)
    if existing is None or parts.service.annotations.get(ANNOTATION_RENDER) == REQUESTED:
        return newest
    version, has = version_of(existing), passed_before(existing)
    if version == LATEST and has == passed:
        return newest
    same = inference_service(parts, cached=cached, mode=mode, version=version, passed=has)
    return same if not existing.complete or _pods_stay(existing.body, same) else newest


def version_of(existing: KubeObject) -> int:
    """The render version. An unknown version counts as the newest."""
    text = existing.annotations.get(ANNOTATION_RENDER)
    if text is None:
        return 1
    return int(text) if text.isdecimal() and 1 <= int(text) <= LATEST else LATEST


def passed_before(existing: KubeObject) -> dict[str, str]:
    """The labels that it got from its service when its pods were rolled out last, whatever others
    did to them since."""
    return from_text(existing.annotations.get(ANNOTATION_PASSED, ""))


def pod_part(body: Body) -> Body:
    """The part of an InferenceService that reaches the pod template, with labels and
    annotations."""
    metadata = body["metadata"]
    predictor = body["spec"]["predictor"]
    annotations = {
        name: value for name, value in metadata["annotations"].items() if name != KSERVE_STOP
    }
    return {
        "metadata": {"labels": metadata["labels"], "annotations": annotations},
        "spec": {
            "predictor": {
                field: value for field, value in predictor.items() if field not in NOT_OF_THE_POD
            }
        },
    }


def _pods_stay(existing: Body, sent: Body) -> bool:
    """Whether an apply changes no pod. Literals compare by hash. Before release 0.3 the bus had
    neither value nor hash: then only names compare."""
    existing = without_literals(existing)
    sent = without_literals(sent)
    known = existing.get(HASHES, {})
    same = all(known.get(path, hashed) == hashed for path, hashed in sent.get(HASHES, {}).items())
    return same and _contains(existing, pod_part(sent))


def _contains(existing: Any, sent: Any) -> bool:
    """Whether `existing` contains all of `sent`. The server adds defaults and drops empty
    values."""
    if isinstance(sent, dict):
        if not isinstance(existing, dict):
            return False
        if sent.keys() == {"requests", "limits"}:
            return all(
                map(_contains_quantities, (existing.get(name) for name in sent), sent.values())
            )
        return all(
            name in existing and _contains(existing[name], value) for name, value in sent.items()
        )
    if isinstance(sent, list):
        return isinstance(existing, list) and _contains_items(existing, sent)
    return bool(existing == sent)


def _contains_quantities(existing: Any, sent: dict[str, str]) -> bool:
    """Whether quantities are equal. KServe's webhook shortens them: 1024Gi becomes 1Ti."""
    try:
        return all(exact(existing[name]) == exact(quantity) for name, quantity in sent.items())
    except (KeyError, TypeError, ValueError):
        return False


def _contains_items(existing: list[Any], sent: list[Any]) -> bool:
    """Compare named items by name, with extra items allowed; compare other lists item by item."""
    if all(isinstance(item, dict) and "name" in item for item in [*existing, *sent]) and len(
        {item["name"] for item in existing}
    ) == len(existing):
        named = {item["name"]: item for item in existing}
        return all(item["name"] in named and _contains(named[item["name"]], item) for item in sent)
    return len(existing) == len(sent) and all(map(_contains, existing, sent))
