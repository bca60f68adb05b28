"""Labels that an object passes on to what is created for it. Pure.

Which ones is a choice of the namespace's config. A queue of Kueue is always passed on: a workload
without it would bypass the quota. Labels that a tool or a controller sets to find its own objects
are never passed on: it would take the new object for one of its own.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from aimschema.kinds import ConfigSpec
from aimschema.labels import KUEUE_QUEUE, PREFIX

TOTAL_LENGTH: Final = 1000
"""Of the passed labels as text: an InferenceService lists them in an annotation."""
_NEVER: Final = (
    PREFIX,
    "app.kubernetes.io/",
    "helm.sh/",
    "argocd.argoproj.io/",
    "serving.kserve.io/",
    "networking.kserve.io/",
)
_NEVER_BELOW: Final = ("kubernetes.io", "k8s.io", "toolkit.fluxcd.io")
"""Domains whose subdomains count too."""
_PART: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"([a-z0-9][-a-z0-9.]{{0,252}}/)?{_PART}")
_VALUE: Final = re.compile(rf"({_PART})?")
_OF_CONTROLLERS: Final = frozenset({"controller-uid", "job-name", "pod-template-hash"})
"""Labels without a domain that Kubernetes sets on pods."""


def passed_on(labels: Mapping[str, str], config: ConfigSpec | None) -> dict[str, str]:
    """Those of `labels` that are passed on: a queue first, then by name, as many as have room."""
    names = list(_passed_names(labels, config))
    lengths = accumulate(len(f"{name}={labels[name]},") for name in names)
    return {
        name: labels[name]
        for name, length in zip(names, lengths, strict=True)
        if length <= TOTAL_LENGTH
    }


def as_text(passed: Mapping[str, str]) -> str:
    """Labels as `name=value`, in their order. Neither part can have `=` or `,`."""
    return ",".join(f"{name}={value}" for name, value in passed.items())


def from_text(text: str) -> dict[str, str]:
    """The inverse of `as_text`. What is no label, after an edit by hand, is left out."""
    pairs = (each.partition("=") for each in text.split(","))
    return {
        name: value
        for name, _, value in pairs
        if _NAME.fullmatch(name) and _VALUE.fullmatch(value) and not is_reserved(name)
    }


def is_reserved(name: str) -> bool:
    """Whether a label is never passed on, whatever the config matches."""
    domain = name.rpartition("/")[0]
    return (
        name.startswith(_NEVER)
        or name in _OF_CONTROLLERS
        or any(domain == each or domain.endswith("." + each) for each in _NEVER_BELOW)
    )


def _passed_names(labels: Mapping[str, str], config: ConfigSpec | None) -> Iterator[str]:
    if KUEUE_QUEUE in labels:
        yield KUEUE_QUEUE
    chosen = None if config is None else config.label_propagation
    if chosen is None or chosen.enabled is False:
        return
    for name in sorted(labels):
        matches = any(_matches(name, pattern) for pattern in chosen.match or ())
        if name != KUEUE_QUEUE and matches and not is_reserved(name):
            yield name


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
