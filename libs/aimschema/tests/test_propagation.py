"""Which labels go along."""

import pytest

from aimschema.kinds import ConfigSpec
from aimschema.propagation import TOTAL_LENGTH, as_text, from_text, is_reserved, passed_on

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


def test_together_they_stay_short_and_the_queue_is_among_them() -> None:
    many = {f"{number:03}-{'x' * 57}": "1" for number in range(100)} | {QUEUE: "gpus"}
    passed = passed_on(many, config(match=["*"]))
    assert list(passed)[:2] == [QUEUE, f"000-{'x' * 57}"]
    assert TOTAL_LENGTH - 64 < len(as_text(passed)) <= TOTAL_LENGTH
    assert list(from_text(as_text(passed)).items()) == list(passed.items())


def test_long_values_count_too() -> None:
    many = {f"{number:02}": "v" * 63 for number in range(99)}
    assert len(as_text(passed_on(many, config(match=["*"])))) <= TOTAL_LENGTH


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("", {}),
        ("a", {"a": ""}),
        ("a=1,example.org/b=,c=x.y_z-0", {"a": "1", "example.org/b": "", "c": "x.y_z-0"}),
        ("a b=1,=2,c=d e,é=1,-a=1,a=1=2", {}),
        ("aim.silogen.ai/service=other", {}),
    ],
)
def test_an_edited_text_gives_only_labels(text: str, passed: dict[str, str]) -> None:
    assert from_text(text) == passed
