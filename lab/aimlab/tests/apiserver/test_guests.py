"""What Istio, OpenShift and Kueue do to pods and Jobs of namespaces that ask for it."""

from typing import Any

import pytest

Body = dict[str, Any]
PODS, JOBS = "/api/v1/namespaces/team/pods", "/apis/batch/v1/namespaces/team/jobs"
QUEUE = {"kueue.x-k8s.io/queue-name": "gpus"}
RANGE = {"openshift.io/sa.scc.uid-range": "1000650000/10000"}
MERGE = "application/merge-patch+json"


async def namespace(api: Any, **metadata: Any) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "team"} | metadata})


def pod(spec: Body | None = None, **metadata: Any) -> Body:
    containers = [{"name": "main", "image": "x:1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"} | metadata,
        "spec": {"containers": containers} | (spec or {}),
    }


def job(**labels: str) -> Body:
    template = {
        "metadata": {"labels": labels},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x:1"}]},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "labels": labels},
        "spec": {"template": template},
    }


@pytest.mark.parametrize(
    ("labels", "metadata", "names"),
    [
        pytest.param({"istio-injection": "enabled"}, {}, ["main", "istio-proxy"], id="injected"),
        pytest.param(
            {"istio-injection": "enabled"},
            {"labels": {"sidecar.istio.io/inject": "false"}},
            ["main"],
            id="not-by-label",
        ),
        pytest.param(
            {"istio-injection": "enabled"},
            {"annotations": {"sidecar.istio.io/inject": "false"}},
            ["main"],
            id="not-by-annotation",
        ),
        pytest.param({}, {}, ["main"], id="no-istio"),
        pytest.param(
            {}, {"labels": {"sidecar.istio.io/inject": "true"}}, ["main"], id="no-istio-to-ask"
        ),
    ],
)
async def test_a_sidecar_is_injected_unless_the_pod_opts_out(
    api: Any, labels: Body, metadata: Body, names: list[str]
) -> None:
    await namespace(api, labels=labels)
    made = await api.ok("POST", PODS, pod(**metadata))
    assert [container["name"] for container in made["spec"]["containers"]] == names


@pytest.mark.parametrize(
    ("wish", "names"),
    [({}, ["main", "istio-proxy"]), ({"linkerd.io/inject": "disabled"}, ["main"])],
    ids=["injected", "not"],
)
async def test_another_mesh_injects_whatever_istios_label_is(
    api: Any, wish: Body, names: list[str]
) -> None:
    await namespace(api, annotations={"linkerd.io/inject": "enabled"})
    made = await api.ok(
        "POST", PODS, pod(labels={"sidecar.istio.io/inject": "false"}, annotations=wish)
    )
    assert [container["name"] for container in made["spec"]["containers"]] == names


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param(
            {"securityContext": {"runAsUser": 65532}},
            "provider restricted-v2: .containers[0].runAsUser: Invalid value: 65532: must be in the"
            " ranges: [1000650000, 1000659999]",
            id="uid",
        ),
        pytest.param(
            {"securityContext": {"fsGroup": 1000}},
            "provider restricted-v2: .spec.securityContext.fsGroup: Invalid value: []int64{1000}:"
            " 1000 is not an allowed group",
            id="group",
        ),
        pytest.param(
            {"containers": [{"name": "main", "image": "x:1", "securityContext": {"runAsUser": 0}}]},
            "provider restricted-v2: .containers[0].runAsUser: Invalid value: 0: must be in the"
            " ranges: [1000650000, 1000659999]",
            id="uid-of-a-container",
        ),
    ],
)
async def test_a_uid_out_of_the_range_of_the_namespace_is_rejected(
    api: Any, spec: Body, why: str
) -> None:
    await namespace(api, annotations=RANGE)
    status, answer = await api("POST", PODS, pod(spec))
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert (
        answer["message"]
        == 'pods "p" is forbidden: unable to validate against any security context constraint:'
        f" [{why}]"
    )


async def test_a_pod_without_uid_gets_one_and_what_restricted_needs(api: Any) -> None:
    await namespace(
        api, annotations=RANGE, labels={"pod-security.kubernetes.io/enforce": "restricted"}
    )
    made = await api.ok("POST", PODS, pod())
    assert made["spec"]["securityContext"]["fsGroup"] == 1000650000
    assert made["spec"]["containers"][0]["securityContext"]["runAsUser"] == 1000650000
    assert made["metadata"]["annotations"]["openshift.io/scc"] == "restricted-v2"


async def test_a_uid_within_the_range_stays(api: Any) -> None:
    await namespace(api, annotations=RANGE)
    made = await api.ok("POST", PODS, pod({"securityContext": {"runAsUser": 1000650007}}))
    assert made["spec"]["containers"][0]["securityContext"]["runAsUser"] == 1000650007


async def test_a_job_with_a_queue_is_suspended_and_let_go_by_its_field(api: Any) -> None:
    await namespace(api, labels={"lab.aim/kueue": "enabled"})
    assert (await api.ok("POST", JOBS, job(**QUEUE)))["spec"]["suspend"] is True
    admitted = await api.ok("PATCH", f"{JOBS}/j", {"spec": {"suspend": False}}, MERGE)
    assert admitted["spec"]["suspend"] is False


async def test_a_pod_with_a_queue_is_gated_until_the_gate_goes(api: Any) -> None:
    await namespace(api, labels={"lab.aim/kueue": "enabled"})
    made = await api.ok("POST", PODS, pod(labels=QUEUE))
    (condition,) = made["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "PodScheduled",
        "False",
        "SchedulingGated",
    )
    freed = await api.ok("PATCH", f"{PODS}/p", {"spec": {"schedulingGates": []}}, MERGE)
    assert freed["spec"]["schedulingGates"] == []
    status, answer = await api(
        "PATCH", f"{PODS}/p", {"spec": {"schedulingGates": [{"name": "a/b"}]}}, MERGE
    )
    assert (status, answer["details"]["causes"][0]["field"]) == (
        422,
        "spec.schedulingGates[0].name",
    )


async def test_without_queue_name_or_kueue_nothing_waits(api: Any) -> None:
    await namespace(api)
    assert (await api.ok("POST", JOBS, job(**QUEUE)))["spec"]["suspend"] is False
    assert "schedulingGates" not in (await api.ok("POST", PODS, pod(labels=QUEUE)))["spec"]


async def test_a_template_under_pod_security_is_let_in_with_a_warning(api: Any) -> None:
    await namespace(api, labels={"pod-security.kubernetes.io/enforce": "restricted"})
    async with api.session.post(JOBS, json=job()) as answer:
        (warning,) = answer.headers.getall("Warning")
    assert answer.status == 201
    assert "would violate PodSecurity" in warning
