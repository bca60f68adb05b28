"""The messages for objects that block a create."""

import pytest

from aimcontroller.projection import KubeObject
from aimcontroller.removal import is_of_former, of_another, of_former, removal
from aimcontroller.testing import Body, cr, held_by_finalizers, obj, projection
from aimschema.resources import INFERENCE_SERVICE, SERVICE, key_of

OWNER = cr(SERVICE.kind, "s", {"model": "m", "templateRef": "t"}, uid="second")
RUNTIME = obj(INFERENCE_SERVICE.kind, "s", owner=(SERVICE.kind, "s"))


def kube_object(body: Body) -> KubeObject:
    found = projection(body).get(key_of(body))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("finalizers", "message"),
    [
        ((), "InferenceService s is being deleted"),
        (
            ("inferenceservice.finalizers",),
            (
                "InferenceService s is being deleted, held by finalizer"
                " inferenceservice.finalizers; if this persists, check that the controller that"
                " set it is running"
            ),
        ),
        (
            ("a.org/x", "b.org/y"),
            (
                "InferenceService s is being deleted, held by finalizer a.org/x, b.org/y; if this"
                " persists"
            ),
        ),
    ],
    ids=["none", "one", "two"],
)
def test_finalizers_that_keep_an_object_are_named(
    finalizers: tuple[str, ...], message: str
) -> None:
    held = kube_object(held_by_finalizers(RUNTIME, *finalizers))
    assert removal(held).startswith(message)
    assert (
        of_former(kube_object(OWNER), held)
        == f"{removal(held)} (created for the former AIMService s)"
    )


@pytest.mark.parametrize(
    ("existing", "former"),
    [
        pytest.param(RUNTIME, True, id="of-a-former-service"),
        pytest.param(
            obj(INFERENCE_SERVICE.kind, "s", owner=(SERVICE.kind, "another")),
            False,
            id="of-another-service",
        ),
        pytest.param(
            obj(INFERENCE_SERVICE.kind, "s", owner=("Job", "s")), False, id="of-another-kind"
        ),
        pytest.param(obj(INFERENCE_SERVICE.kind, "s"), False, id="of-a-person"),
    ],
)
def test_leftovers_differ_from_objects_of_others(existing: Body, former: bool) -> None:
    assert is_of_former(kube_object(OWNER), kube_object(existing)) is former


def test_what_is_the_owners_own_is_not_of_a_former_one() -> None:
    owner = cr(SERVICE.kind, "s", {"model": "m", "templateRef": "t"})
    assert not is_of_former(kube_object(owner), kube_object(RUNTIME))


def test_what_waits_for_garbage_collection() -> None:
    assert (
        of_former(kube_object(OWNER), kube_object(RUNTIME))
        == "InferenceService s, created for the former AIMService s, is being removed"
    )


def test_an_object_of_another_owner_has_a_remedy() -> None:
    assert (
        of_another(kube_object(OWNER), kube_object(RUNTIME))
        == "InferenceService s exists and was not made for AIMService s; rename or delete one of"
        " them"
    )
