"""Which labels go along."""

import pytest

from aimschema.kinds import ConfigSpec
from aimschema.propagation import NAMES_LENGTH, is_reserved, passed_on

QUEUE = "kueue.x-k8s.io/queue-name"
OWN = {"team": "vision", "example.org/cost": "42", "example.org/tier": "gold", QUEUE: "gpus"}


def config(**propagation: object) -> ConfigSpec:
    return ConfigSpec.model_validate({"labelPropagation": propagation})


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, []),
        (ConfigSpec(), []),
        (config(), []),
        (config(enabled=True), []),
        (config(match=["team"]), ["team"]),
        (config(match=["tea"]), []),
        (config(match=["example.org/*"]), ["example.org/cost", "example.org/tier"]),
        (config(match=["example.org/c*", "team"]), ["example.org/cost", "team"]),
        (config(match=["*"]), ["example.org/cost", "example.org/tier", "team"]),
        (config(enabled=False, match=["*"]), []),
    ],
)
def test_matching_labels_and_a_queue_are_passed_on(
    chosen: ConfigSpec | None, names: list[str]
) -> None:
    assert passed_on(OWN, chosen) == {name: OWN[name] for name in (QUEUE, *names)}
    assert list(passed_on(OWN, chosen)) == [QUEUE, *names]


@pytest.mark.parametrize(
    "name",
    [
        "app.kubernetes.io/instance",
        "helm.sh/chart",
        "argocd.argoproj.io/instance",
        "kustomize.toolkit.fluxcd.io/name",
        "helm.toolkit.fluxcd.io/namespace",
        "serving.kserve.io/inferenceservice",
        "networking.kserve.io/visibility",
        "kubernetes.io/metadata.name",
        "batch.kubernetes.io/job-name",
        "endpointslice.kubernetes.io/managed-by",
        "node.k8s.io/name",
        "aim.silogen.ai/template",
        "pod-template-hash",
        "controller-uid",
        "job-name",
    ],
)
def test_labels_of_tools_and_controllers_are_not(name: str) -> None:
    assert is_reserved(name)
    assert passed_on({name: "x"}, config(match=["*", name])) == {}


@pytest.mark.parametrize(
    "name", ["mykubernetes.io/x", "kubernetes.io.example.org/x", "helm.shop/x"]
)
def test_similar_names_are(name: str) -> None:
    assert passed_on({name: "x"}, config(match=["*"])) == {name: "x"}


def test_their_names_stay_short_and_the_queue_is_among_them() -> None:
    many = {f"{number:03}-{'x' * 57}": "1" for number in range(100)} | {QUEUE: "gpus"}
    passed = passed_on(many, config(match=["*"]))
    assert list(passed)[:2] == [QUEUE, f"000-{'x' * 57}"]
    assert NAMES_LENGTH - 64 < len(",".join(passed)) <= NAMES_LENGTH
