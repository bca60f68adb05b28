"""The deployment mode: Standard, and RawDeployment once where KServe rejects that."""

from typing import Any

import pytest

from aim_deployer.modes import about_mode
from aimcontroller.projection import REJECTED, ApplyRejected, Observation
from aimcontroller.testing import NAMESPACE, Body, applied, condition_summary, message, projection
from aimschema.resources import BUDGET, INFERENCE_SERVICE, Key

ISVC = Key(INFERENCE_SERVICE.kind, NAMESPACE, "s")
MODE = "serving.kserve.io/deploymentMode"
DENIED = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '
STRATEGY = f"{DENIED}customizing deploymentStrategy is only supported for raw deployment mode"
QUOTA = 'inferenceservices.serving.kserve.io "s" is forbidden: exceeded quota: q'


@pytest.mark.parametrize(
    ("text", "about"),
    [
        pytest.param(STRATEGY, True, id="kserve-0.15"),
        pytest.param(
            f"{DENIED}update rejected: deploymentMode cannot be changed from 'Standard' to"
            " 'RawDeployment'",
            True,
            id="changed",
        ),
        pytest.param(
            f'{DENIED}invalid deployment mode "Standard". Valid modes are Serverless,'
            " RawDeployment, ModelMesh",
            True,
            id="named",
        ),
        pytest.param(
            ".spec.predictor.deploymentStrategy: field not declared in schema",
            True,
            id="not-in-the-schema",
        ),
        pytest.param(QUOTA, False, id="quota"),
        pytest.param(
            f'{DENIED}the InferenceService "s" is invalid: deployment too large',
            False,
            id="deployment",
        ),
        pytest.param("failed calling webhook: no endpoints available", False, id="webhook-down"),
        pytest.param("", False, id="no-words"),
    ],
)
def test_a_rejection_for_the_mode_is_known(text: str, *, about: bool) -> None:
    assert about_mode(text) is about


def sent(
    world: Any, *setup: Body, rejection: Observation | None = None, mode: str = "auto"
) -> tuple[str, bool]:
    """The mode that is sent, and whether the strategy is."""
    observations = [] if rejection is None else [rejection]
    body = applied(
        world.plan(projection(*world.parts(), *setup, observations=observations), mode),
        INFERENCE_SERVICE.kind,
    )
    return body["metadata"]["annotations"][MODE], "deploymentStrategy" in body["spec"]["predictor"]


def rejection_by_server(
    world: Any, text: str, *earlier: str, transient: bool = False
) -> Observation:
    return Observation(
        world.key,
        REJECTED,
        ApplyRejected(ISVC, text, transient=transient, earlier=frozenset(earlier)),
    )


@pytest.mark.parametrize(
    ("text", "earlier", "mode", "expected"),
    [
        pytest.param(None, (), "auto", ("Standard", True), id="at-first"),
        pytest.param(STRATEGY, (), "auto", ("RawDeployment", True), id="rejected"),
        pytest.param(QUOTA, (), "auto", ("Standard", True), id="rejected-for-something-else"),
        pytest.param(
            QUOTA, (STRATEGY,), "auto", ("RawDeployment", True), id="then-for-something-else"
        ),
        pytest.param(QUOTA, (STRATEGY, QUOTA), "auto", ("RawDeployment", True), id="and-again"),
        pytest.param(STRATEGY, (), "Standard", ("Standard", True), id="Standard-is-set"),
        pytest.param(None, (), "RawDeployment", ("RawDeployment", True), id="RawDeployment-is-set"),
        pytest.param(
            STRATEGY,
            (),
            "RawDeployment",
            ("RawDeployment", False),
            id="RawDeployment-on-KServe-0.16",
        ),
    ],
)
def test_which_mode_a_new_service_gets(
    world: Any, text: str | None, earlier: tuple[str, ...], mode: str, expected: tuple[str, bool]
) -> None:
    rejection = None if text is None else rejection_by_server(world, text, *earlier)
    assert sent(world, rejection=rejection, mode=mode) == expected


def existing(world: Any, name: str, *, strategy: bool = True, **status: Any) -> Body:
    body: Body = world.runtime(**status)
    body["metadata"]["annotations"] = {**body["metadata"]["annotations"], MODE: name}
    if not strategy:
        body["spec"]["predictor"] = {
            field: value
            for field, value in body["spec"]["predictor"].items()
            if field != "deploymentStrategy"
        }
    return body


@pytest.mark.parametrize("mode", ["auto", "Standard", "RawDeployment"])
@pytest.mark.parametrize("name", ["Standard", "RawDeployment"])
def test_the_accepted_mode_stays(world: Any, name: str, mode: str) -> None:
    assert sent(world, existing(world, name), mode=mode) == (name, True)
    assert sent(
        world, existing(world, name), rejection=rejection_by_server(world, QUOTA), mode=mode
    ) == (
        name,
        True,
    )


def test_after_an_upgrade_of_kserve_the_strategy_is_left_out(world: Any) -> None:
    """KServe 0.16 rejects a strategy together with RawDeployment, which 0.15 accepted."""
    assert sent(
        world, existing(world, "RawDeployment"), rejection=rejection_by_server(world, STRATEGY)
    ) == (
        "RawDeployment",
        False,
    )
    assert sent(world, existing(world, "RawDeployment", strategy=False)) == ("RawDeployment", False)


def test_a_changed_annotation_is_repaired(world: Any) -> None:
    assert sent(world, existing(world, "Serverless", deploymentMode="RawDeployment")) == (
        "RawDeployment",
        True,
    )
    assert sent(world, existing(world, "Serverless", deploymentMode="Serverless")) == (
        "Standard",
        True,
    )


def test_trying_the_other_mode_is_no_failure(world: Any) -> None:
    first = world.plan(
        projection(*world.parts(), observations=[rejection_by_server(world, STRATEGY)])
    )
    assert condition_summary(first, "RuntimeReady") == "False CreatingRuntime"


@pytest.mark.parametrize("text", [STRATEGY, QUOTA])
def test_a_rejection_of_both_modes_is_reported(world: Any, text: str) -> None:
    plan = world.plan(
        projection(*world.parts(), observations=[rejection_by_server(world, text, STRATEGY)])
    )
    assert condition_summary(plan, "RuntimeReady") == "False RuntimeFailed"
    assert text in message(plan, "RuntimeReady")


def test_a_rejection_of_the_mode_that_is_set_is_reported(world: Any) -> None:
    plan = world.plan(
        projection(*world.parts(), observations=[rejection_by_server(world, STRATEGY)]), "Standard"
    )
    assert condition_summary(plan, "RuntimeReady") == "False RuntimeFailed"


def test_a_rejection_of_another_object_does_not_count(world: Any) -> None:
    budget = Observation(
        world.key, REJECTED, ApplyRejected(Key(BUDGET.kind, NAMESPACE, "s"), STRATEGY)
    )
    assert sent(world, rejection=budget) == ("Standard", True)
