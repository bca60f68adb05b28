"""The warnings of the cacher on a config, which has no status."""

import datetime
from typing import Any

from aim_cacher.projection import map_to_keys
from aimcontroller.plan import EMPTY_PLAN, Plan
from aimcontroller.projection import Projection
from aimcontroller.testing import NAMESPACE, NOW, Body, projection, storage_class
from aimschema import labels
from aimschema.resources import CONFIG, Key

CONFIG_KEY = Key(CONFIG.kind, NAMESPACE, "default")
AN_HOUR_AGO = NOW - datetime.timedelta(hours=1)
TOKEN: Body = {"huggingFaceToken": {"name": "hf", "key": "token"}}


def planned(world: Any, state: Projection) -> Plan:
    plan: Plan = world.plan(state, "default", CONFIG.kind)
    return plan


def warned(plan: Plan) -> list[tuple[str, str]]:
    return [
        (warning.reason, warning.message) for report in plan.reports for warning in report.warnings
    ]


def waiting(world: Any, message: str) -> Body:
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}
    pod: Body = world.running(
        status={"phase": "Pending", "containerStatuses": [{"name": "downloader", "state": state}]}
    )
    return pod


def test_a_missing_class_is_reported_with_its_field(world: Any) -> None:
    config = world.config(cacheStorageClassName="nowhere")
    [(reason, text)] = warned(planned(world, projection(config, storage_class())))
    assert reason == "StorageClassMissing"
    assert text.startswith("spec.cacheStorageClassName names StorageClass nowhere")


def test_a_missing_secret_is_reported_with_its_field(world: Any) -> None:
    for message in ('secret "hf" not found', f"couldn't find key token in Secret {NAMESPACE}/hf"):
        bodies = (
            world.config(credentials=TOKEN),
            world.cache(),
            world.claim(),
            world.download(),
            waiting(world, message),
        )
        [(reason, text)] = warned(planned(world, projection(*bodies)))
        assert reason == "SecretMissing"
        assert text.startswith("spec.credentials.huggingFaceToken names Secret hf")


def test_a_config_is_not_warned_for_the_secret_of_another(world: Any) -> None:
    other = world.cache(annotations={labels.ANNOTATION_CONFIG: "team"})
    for cache, message in (
        (world.cache(), 'secret "mine" not found'),
        (other, 'secret "hf" not found'),
    ):
        bodies = (
            world.config(credentials=TOKEN),
            cache,
            world.claim(),
            world.download(),
            waiting(world, message),
        )
        assert planned(world, projection(*bodies)) == EMPTY_PLAN


def test_a_pod_wakes_the_config_of_its_cache(world: Any) -> None:
    state = projection(world.config(), world.cache(), world.download(), world.running())
    assert CONFIG_KEY in set(map_to_keys(state, Key("Pod", NAMESPACE, "c-download-x")))
