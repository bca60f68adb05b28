"""The end of a run as a value that runs can be compared by, and what is wrong with the Jobs that
were run."""

import json
import re
from collections.abc import Iterable
from typing import Any

from aim_testing.chaos.fastnode import Run
from aimschema import labels
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
)

Body = dict[str, Any]
State = dict[str, Any]
FIRST_RETRY_S = 30.0
COMPARED = (MODEL, TEMPLATE, SERVICE, CACHE, JOB, POD, CLAIM, CONFIG_MAP, INFERENCE_SERVICE, ROUTE)
NOT_COMPARED = frozenset(
    {
        "uid",
        "resourceVersion",
        "managedFields",
        "generation",
        "observedGeneration",
        "creationTimestamp",
    }
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_TRY = re.compile(r"try \d+")
"""How often a registry was asked depends on how long a run takes; how often a Job was run,
`wrong_runs` says."""
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def plain(bodies: Iterable[Body]) -> State:
    """Objects by name, without what differs between runs: uids become who they are of, times and
    versions go."""
    every = list(bodies)
    known = {body["metadata"]["uid"]: f"uid of {_name(body)}" for body in every}
    return {_name(body): _plain(_unasked(body), known) for body in every}


def _unasked(body: Body) -> Body:
    """A shared cache without the label that says which model asked first: where two do, it is a
    matter of moments."""
    metadata = body["metadata"]
    if body["kind"] != CACHE.kind:
        return body
    return {
        **body,
        "metadata": {
            **metadata,
            "labels": {
                name: value
                for name, value in metadata["labels"].items()
                if name != labels.LABEL_MODEL
            },
        },
    }


def _name(body: Body) -> str:
    return f"{body['kind']} {body['metadata'].get('namespace', '-')}/{body['metadata']['name']}"


def _plain(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            name: _plain(part, known) for name, part in value.items() if name not in NOT_COMPARED
        }
    if isinstance(value, list):
        parts = [_plain(part, known) for part in value]
        return (
            sorted(parts, key=lambda part: str(part["type"]))
            if parts and all(isinstance(part, dict) and "type" in part for part in parts)
            else parts
        )
    if isinstance(value, str):
        named = _UID.sub(lambda found: known.get(found[0], f"unknown {found[0]}"), value)
        return _TRY.sub("try <n>", _TIME.sub("<time>", named))
    return value


def differences(expected: State, found: State) -> list[str]:
    """In words, at most a few."""
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} should not be there" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        problems += [f"{name}: {text}" for text in _differing("", expected[name], found[name])]
    return problems


def _differing(path: str, expected: Any, found: Any) -> list[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        return [
            text
            for key in sorted(expected.keys() | found.keys())
            for text in _differing(f"{path}.{key}", expected.get(key), found.get(key))
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            text
            for i, (one, other) in enumerate(zip(expected, found, strict=True))
            for text in _differing(f"{path}[{i}]", one, other)
        ]
    return (
        []
        if expected == found
        else [f"{path} should be {json.dumps(expected)[:200]}, is {json.dumps(found)[:200]}"]
    )


def wrong_runs(runs: Iterable[Run]) -> list[str]:
    """Jobs that ran again after they had succeeded for the same inputs, or too soon after they
    had failed."""
    succeeded: set[tuple[str, ...]] = set()
    failed_at_s: dict[tuple[str, ...], float] = {}
    problems = []
    for run in runs:
        key = (run.namespace, run.job, run.owner, run.inputs)
        if key in succeeded:
            problems.append(
                f"Job {run.namespace}/{run.job} ran again, though it had succeeded for the inputs"
                f" {run.inputs or 'in its name'}"
            )
        waited_s = run.started_s - failed_at_s.get(key, float("-inf"))
        if waited_s < FIRST_RETRY_S - 1.0:  # (times on objects are whole seconds)
            problems.append(
                f"Job {run.namespace}/{run.job} was tried again {waited_s:.1f} s after it had"
                " failed"
            )
        if run.succeeded:
            succeeded.add(key)
        else:
            failed_at_s[key] = run.ended_s
    return problems


def all_running(state: State) -> bool:
    services = [body for name, body in state.items() if name.startswith(f"{SERVICE.kind} ")]
    return bool(services) and all(
        body.get("status", {}).get("status") == "Running" for body in services
    )
