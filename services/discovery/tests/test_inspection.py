"""Inspections as the service runs them: a few at once, with the pull secrets of its namespace,
and with every error."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, cast

import pytest

import aimkube
from aim_discovery.actions import InspectImage
from aim_discovery.catalogue import INSPECTION, Inspection
from aim_discovery.inspection import MOST_AT_ONCE, Inspector, finding_of
from aim_discovery.registry import Registries
from aimcontroller.action_log import ActionRecord
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.projection import Observation
from aimkube import Forbidden, KubeError, NotFound, Unavailable
from aimlab.sources.registry import Failure, Registry
from aimschema.resources import MODEL, SECRET, Key, Resource

OWN = "aim-system"
LABELS = {
    "com.amd.aim.model.canonicalName": "m:1",
    "com.amd.aim.model.recommendedDeployments": '[{"gpuModel": "MI300X"}]',
}


class Cluster:
    """Secrets of one namespace, or the error that a read of one raises."""

    def __init__(self, secrets: Mapping[str, dict[str, Any] | KubeError]) -> None:
        self._secrets = secrets

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        assert (resource, namespace) == (SECRET, OWN)
        found = self._secrets.get(name, NotFound(f"no secret {name}"))
        if isinstance(found, KubeError):
            raise found
        return found


class Background:
    """Runs inspections as the controller does."""

    def __init__(self, secrets: Mapping[str, dict[str, Any] | KubeError] | None = None) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.results: list[ActionResult] = []
        self.errors: list[KubeError] = []
        cluster = cast(aimkube.Cluster, Cluster(secrets or {}))
        self.ctx = ActionContext(cluster, self._not_used, self._not_used, self.start)

    def start(self, work: Coroutine[Any, Any, ActionResult]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(self._run(work)))
        return self.tasks[-1]

    @property
    def found(self) -> list[Inspection]:
        observations = [each for result in self.results for each in result.observations]
        assert all(each.topic == INSPECTION for each in observations)
        return [each.value for each in observations if isinstance(each.value, Inspection)]

    async def ended(self) -> None:
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _run(self, work: Coroutine[Any, Any, ActionResult]) -> None:
        try:
            self.results.append(await work)
        except KubeError as error:
            self.errors.append(error)

    def _not_used(self, _message: object) -> Any:
        raise AssertionError("an inspection publishes nothing while it runs")


def config_json(registry: Registry, password: str) -> dict[str, Any]:
    auths = {"auths": {registry.host: {"username": "ada", "password": password}}}
    return {
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()},
    }


def old_config_json(registry: Registry, entry: dict[str, str]) -> dict[str, Any]:
    """A Secret as OpenShift makes it."""
    return {
        "type": "kubernetes.io/dockercfg",
        "data": {
            ".dockercfg": base64.b64encode(json.dumps({registry.host: entry}).encode()).decode()
        },
    }


def inspect(image: str, *secrets: str, model: str = "m", inputs: str = "i") -> InspectImage:
    return InspectImage(Key(MODEL.kind, None, model), image, secrets, inputs, 1)


@pytest.fixture
async def inspector() -> AsyncIterator[Inspector]:
    async with Registries() as registries:
        yield Inspector(registries, OWN)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as served:
        served.put_image("aim/m", "1", LABELS)
        served.put_image("aim/plain", "1", {"maintainer": "a team"})
        yield served


async def outcome(
    inspector: Inspector,
    action: InspectImage,
    secrets: Mapping[str, dict[str, Any] | KubeError] | None = None,
) -> Inspection:
    background = Background(secrets)
    assert inspector.start(action, background.ctx) == ActionResult()
    await background.ended()
    [inspection] = background.found
    finding = finding_of(inspection) if inspection.reason else None
    assert background.results == [
        ActionResult(
            observations=(Observation(action.model, INSPECTION, inspection),),
            requeue_after_s=0.0,
            record=ActionRecord(detail=inspection.message, finding=finding),
        )
    ]
    return inspection


async def test_labels_are_read(inspector: Inspector, registry: Registry) -> None:
    result = await outcome(inspector, inspect(f"{registry.host}/aim/m:1"))
    assert result.found is not None
    assert (result.found.canonical_name, result.found.recommended[0].gpu_model) == ("m:1", "MI300X")
    assert result.digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("path", "reason", "text"),
    [
        pytest.param("aim/none:1", "ImageNotFound", "is not in its registry", id="missing"),
        pytest.param("aim/plain:1", "MetadataMissing", "none of the labels", id="no-labels"),
        pytest.param(
            "aim/m:1:2", "ImageNotFound", "spec.image is not an image reference", id="no-reference"
        ),
    ],
)
async def test_a_failure_is_named(
    inspector: Inspector, registry: Registry, path: str, reason: str, text: str
) -> None:
    result = await outcome(inspector, inspect(f"{registry.host}/{path}"))
    assert (result.reason, text in result.message, result.found) == (reason, True, None)


@pytest.mark.parametrize(
    ("secrets", "text"),
    [
        pytest.param(
            {},
            "have none for it: add a Secret there; Secret a does not exist in namespace aim-system",
            id="missing",
        ),
        pytest.param(
            {"a": Forbidden("no")},
            "have none for it that can be read; ServiceAccount aim-discovery is missing get on"
            " secrets named a in namespace aim-system: add the name to the chart's value"
            " services.discovery.pullSecrets",
            id="missing-permission",
        ),
        pytest.param(
            {"a": {"type": "Opaque"}},
            "Secret a is not of type kubernetes.io/dockerconfigjson",
            id="of-another-type",
        ),
    ],
)
async def test_a_broken_pull_secret_is_reported_when_it_is_needed(
    inspector: Inspector, registry: Registry, secrets: dict[str, Any], text: str
) -> None:
    assert (
        await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "a"), secrets)
    ).found is not None
    registry.users = {"ada": "countess"}
    rejected = await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "a"), secrets)
    assert (rejected.reason, text in rejected.message) == ("AuthError", True), rejected.message


async def test_a_missing_image_may_need_a_forbidden_secret(
    inspector: Inspector, registry: Registry
) -> None:
    """Some registries answer 404 for an image that the client may not read."""
    image = f"{registry.host}/aim/none:1"
    secrets = {"a": Forbidden("no"), "b": Forbidden("no")}
    found = await outcome(inspector, inspect(image, "a", "b"), secrets)
    assert found.reason == "ImageNotFound"
    assert "is missing get on secrets named a, b in namespace aim-system" in found.message
    plain = await outcome(inspector, inspect(f"{registry.host}/aim/plain:1", "a"), secrets)
    assert (plain.reason, "missing get" in plain.message) == ("MetadataMissing", False)


async def test_wrong_credentials_are_reported_but_not_quoted(
    inspector: Inspector, registry: Registry
) -> None:
    registry.users = {"ada": "countess"}
    secrets = {
        "right": config_json(registry, "countess"),
        "wrong": config_json(registry, "hidden-word"),
    }
    assert (
        await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "right"), secrets)
    ).found is not None
    assert (
        await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "wrong", "right"), secrets)
    ).found is not None
    wrong = await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "wrong"), secrets)
    assert (wrong.reason, "were rejected: correct them" in wrong.message) == ("AuthError", True)
    assert "hidden-word" not in repr(wrong)


async def test_a_secret_of_the_older_type_opens(inspector: Inspector, registry: Registry) -> None:
    registry.users = {"ada": "countess"}
    secret = old_config_json(registry, {"auth": base64.b64encode(b"ada:countess").decode()})
    assert (
        await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "a"), {"a": secret})
    ).found is not None


async def test_an_identity_token_opens_through_the_token_server(
    inspector: Inspector, registry: Registry
) -> None:
    registry.users = {"ada": "countess"}
    registry.identity_tokens = {"the-token"}
    secrets = {
        name: old_config_json(registry, {"identitytoken": token})
        for name, token in (("right", "the-token"), ("wrong", "hidden-word"))
    }
    assert (
        await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "right"), secrets)
    ).found is not None
    wrong = await outcome(inspector, inspect(f"{registry.host}/aim/m:1", "wrong"), secrets)
    assert (wrong.reason, "hidden-word" in repr(wrong)) == ("AuthError", False)


async def test_unusable_entries_are_reported_when_they_are_needed(
    inspector: Inspector, registry: Registry
) -> None:
    registry.users = {"ada": "countess"}
    rejected = await outcome(
        inspector,
        inspect(f"{registry.host}/aim/m:1", "a"),
        {"a": old_config_json(registry, {"auth": "hidden-word"})},
    )
    assert "Secret a has 1 entries in .dockercfg without a usable auth" in rejected.message
    assert "hidden-word" not in repr(rejected)


async def test_without_the_api_server_the_inspection_is_requeued(
    inspector: Inspector, registry: Registry
) -> None:
    background = Background({"a": Unavailable("away")})
    action = inspect(f"{registry.host}/aim/m:1", "a")
    inspector.start(action, background.ctx)
    await background.ended()
    assert (background.found, [type(error) for error in background.errors]) == ([], [Unavailable])
    inspector.start(action, background.ctx)
    assert len(background.tasks) == 2, "the look that ended does not stand in the way"
    await background.ended()


async def test_an_inspection_runs_once_until_its_inputs_change(
    inspector: Inspector, registry: Registry
) -> None:
    registry.failure = Failure(delay_s=0.2)
    background = Background()
    image = f"{registry.host}/aim/m:1"
    for inputs in ("first", "first", "second"):
        inspector.start(inspect(image, inputs=inputs), background.ctx)
        await asyncio.sleep(0)
    await background.ended()
    assert (len(background.tasks), [result.inputs for result in background.found]) == (
        2,
        ["second"],
    )


async def test_a_registry_that_hangs_holds_up_no_other(
    inspector: Inspector, registry: Registry
) -> None:
    background = Background()
    async with Registry() as hanging:
        hanging.failure = Failure(delay_s=30)
        for number in range(2 * MOST_AT_ONCE):
            inspector.start(inspect(f"{hanging.host}/aim/m:1", model=f"m{number}"), background.ctx)
        inspector.start(inspect(f"{registry.host}/aim/m:1", model="other"), background.ctx)
        await asyncio.wait_for(background.tasks.pop(), 10)
        for task in background.tasks:
            task.cancel()
    assert [result.found is not None for result in background.found] == [True]


async def test_a_registry_sees_a_few_at_once(inspector: Inspector, registry: Registry) -> None:
    registry.failure = Failure(delay_s=0.05)
    background = Background()
    for number in range(4 * MOST_AT_ONCE):
        inspector.start(inspect(f"{registry.host}/aim/m:1", model=f"m{number}"), background.ctx)
    await background.ended()
    assert (
        len([result for result in background.found if result.found is not None]) == 4 * MOST_AT_ONCE
    )
    assert registry.most_at_once == MOST_AT_ONCE
