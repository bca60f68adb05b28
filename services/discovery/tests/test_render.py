"""The objects of a discovery, as they are sent. AIM_WRITE_GOLDEN=1 rewrites the files in
golden/."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimcontroller import testing
from aimcontroller.jobs import JobRules
from aimcontroller.testing import (
    Body,
    action_summaries,
    ago,
    applied,
    condition_summary,
    golden,
    obj,
    projection,
)


def test_the_objects_are_as_recorded(world: Any) -> None:
    config = testing.cr(
        "AIMNamespaceConfig", "default", {"images": {"imagePullSecrets": ["registry"]}}
    )
    golden(
        __file__, "discovery-job", world.rendered("Job", world.template(), world.model(), config)
    )
    bodies = [
        world.template(),
        world.model(),
        world.note(),
        world.job("succeeded"),
        world.pod("Succeeded", 0),
    ]
    answered = world.plan(projection(*bodies, observations=[world.log(json.dumps([world.answer]))]))
    golden(__file__, "result-config-map", applied(answered, "ConfigMap"))


def pod_of(world: Any, **settings: Any) -> Body:
    job = applied(world.plan(projection(world.template(), world.model()), **settings), "Job")
    pod: Body = job["spec"]["template"]["spec"]
    return pod


def test_on_openshift_the_namespace_gives_the_ids(world: Any) -> None:
    pod = pod_of(world, rules=JobRules(openshift=True))
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_a_job_tolerates_what_the_model_servers_do(world: Any) -> None:
    tolerations = [{"key": "pool", "operator": "Exists", "effect": "NoSchedule"}]
    config = testing.cr("AIMNamespaceConfig", "default", {"runtime": {"tolerations": tolerations}})
    job = applied(world.plan(projection(world.template(), world.model(), config)), "Job")
    assert job["spec"]["template"]["spec"]["tolerations"] == tolerations
    assert "tolerations" not in pod_of(world)


def test_labels_of_a_template_are_passed_on(world: Any) -> None:
    """Kueue holds back a Job by its own label. One on the pods would hold them back once more."""
    queue = "kueue.x-k8s.io/queue-name"
    template = world.template()
    template["metadata"]["labels"] = {"team": "vision", "other": "stays", queue: "gpus"}
    config = testing.cr(
        "AIMNamespaceConfig", "default", {"labelPropagation": {"match": ["te*", "aim.*"]}}
    )
    plan = world.plan(projection(template, world.model(), config))
    job, config_map = applied(plan, "Job"), applied(plan, "ConfigMap")
    passed = {"team": "vision", queue: "gpus"}
    own = applied(world.plan(projection(world.template(), world.model())), "Job")
    assert job["metadata"]["labels"] == own["metadata"]["labels"] | passed
    pods = job["spec"]["template"]["metadata"]["labels"]
    assert (pods.get("team"), pods.get(queue)) == ("vision", None)
    assert config_map["metadata"]["labels"].items() >= passed.items()


@pytest.mark.parametrize(
    ("resources", "expected"),
    [({"limits": {"memory": "4Gi"}}, {"limits": {"memory": "4Gi"}}), ({}, None)],
    ids=["limits", "none"],
)
def test_resources_can_be_set(world: Any, resources: Body, expected: Body | None) -> None:
    assert (
        pod_of(world, rules=JobRules(resources=resources))["containers"][0].get("resources")
        == expected
    )


RELEASED = Path(__file__).parent / "released"
CONFIG = {"images": {"imagePullSecrets": ["registry"]}}


def released(name: str, **metadata: Any) -> Body:
    """As 0.2 rendered it."""
    body: Body = yaml.safe_load((RELEASED / f"{name}.yaml").read_text())
    body["metadata"] |= {
        "uid": body["metadata"]["name"],
        "resourceVersion": "1",
        "creationTimestamp": ago(300),
        **metadata,
    }
    return body


def upgraded(world: Any) -> list[Body]:
    return [world.template(), world.model(), testing.cr("AIMNamespaceConfig", "default", CONFIG)]


@pytest.mark.parametrize(
    "rules",
    [JobRules(), JobRules(openshift=True, resources={})],
    ids=["same-settings", "other-settings"],
)
@pytest.mark.parametrize("phase", ["Pending", "Running", "gone"])
def test_a_job_of_version_0_2_finishes_as_it_is(world: Any, rules: JobRules, phase: str) -> None:
    job = released("discovery-job")
    pod = obj("Pod", "p", status={"phase": phase})
    pod["metadata"]["ownerReferences"] = [
        {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    ]
    plan = world.plan(
        projection(*upgraded(world), job, *([] if phase == "gone" else [pod])), rules=rules
    )
    assert [action for action in action_summaries(plan) if "Events" not in action] == []


def test_a_result_of_version_0_2_stays_valid(world: Any) -> None:
    plan = world.plan(projection(*upgraded(world), released("result-config-map")))
    assert (action_summaries(plan), condition_summary(plan, "Discovered")) == (
        ["apply ConfigMap t-discovery"],
        "True ProfilesDiscovered",
    )
    assert applied(plan, "ConfigMap")["data"] == released("result-config-map")["data"]
