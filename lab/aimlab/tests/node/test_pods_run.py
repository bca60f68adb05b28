"""The node against the API server double: Jobs and Pods run as local processes."""

import asyncio
import base64
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aimctl.local.processes import Children
from aimkube import Cluster
from aimlab.kinds import VOLUME, is_true, phase_of
from aimlab.node.events import CORE_EVENT
from aimlab.node.images import ImageCommand, Trouble, read_images, write_images
from aimlab.testing import NAMESPACE, Start, Wait, eventually
from aimschema.resources import CLAIM, JOB, POD, RESOURCES, Resource

Body = dict[str, Any]
pytest_plugins = ["aimlab.testing.fixtures"]
PRINT_PID = "echo $$$$"
"""Two dollars once the kubelet has expanded the argument, as in a cluster."""


def pod_template(script: str, **container: Any) -> Body:
    main = {"name": "main", "image": "shell", "args": ["-c", script]} | container
    return {
        "metadata": {"labels": {"app": "test"}},
        "spec": {"restartPolicy": "Never", "containers": [main]},
    }


def job(name: str, template: Body, **spec: Any) -> Body:
    head = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE},
    }
    return head | {"spec": {"backoffLimit": 0, "template": template} | spec}


def pod(name: str, template: Body, **spec: Any) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": template["spec"] | spec,
    }


def claim(name: str, **spec: Any) -> Body:
    head = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
    }
    return head | {
        "spec": (
            {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}} | spec
        )
    }


def secret(name: str, **data: str) -> Body:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": encoded,
    }


async def create(cluster: Cluster, body: Body) -> Body:
    resource = Resource("Secret", "", "v1", "secrets") if body["kind"] == "Secret" else None
    return await cluster.create(body, resource=resource)


async def pods_of(cluster: Cluster, job_name: str) -> list[Body]:
    return list((await cluster.list(POD, NAMESPACE, label_selector=f"job-name={job_name}")).items)


def content_of(volume: Body, name: str) -> str:
    return Path(volume["spec"]["hostPath"]["path"], name).read_text()


def waiting_reason(body: Body) -> str:
    statuses = body.get("status", {}).get("containerStatuses") or [{}]
    return str(statuses[0].get("state", {}).get("waiting", {}).get("reason", ""))


async def no_pods(cluster: Cluster) -> bool:
    return not (await cluster.list(POD, NAMESPACE)).items


async def lives(mark: Path, expected: bool) -> bool:
    return is_alive(mark) is expected


async def is_deleted(cluster: Cluster, folder: Path) -> bool:
    """Neither the folder nor any volume is there."""
    return not await asyncio.to_thread(folder.exists) and not (await cluster.list(VOLUME)).items


def restarts_of(body: Body) -> int:
    statuses = body.get("status", {}).get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", 0))


def has_id(mark: Path) -> bool:
    """The process has written its id. The shell creates the file before it writes to it."""
    return mark.exists() and bool(mark.read_text())


async def has_started(mark: Path) -> bool:
    return has_id(mark) and is_alive(mark)


def is_alive(mark: Path) -> bool:
    """The process whose id is in the file is there and not a zombie."""
    stat = Path(f"/proc/{int(mark.read_text())}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_job_uses_secret_and_volume_and_its_log_is_readable(
    cluster: Cluster, node: Children, until: Wait
) -> None:
    script = (
        'echo "token is $TOKEN"; echo content > $1/file; cat $1/file; echo "all well" >'
        " $AIM_TERMINATION_LOG"
    )
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    template = pod_template(
        script,
        args=["-c", script, "sh", "/cache"],
        env=[{"name": "TOKEN", "valueFrom": reference}],
        volumeMounts=[{"name": "data", "mountPath": "/cache"}],
    )
    template["spec"]["volumes"] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "cache"}}
    ]
    await create(cluster, secret("hub", token="s3cret"))
    await create(cluster, claim("cache"))
    await create(cluster, job("fill", template))

    done = await until(JOB, "fill", lambda body: is_true(body, "Complete"))
    assert done["status"]["succeeded"] == 1
    [ran] = await pods_of(cluster, "fill")
    assert phase_of(ran) == "Succeeded"
    assert ran["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "all well\n"
    assert (
        await cluster.read_log(NAMESPACE, ran["metadata"]["name"], "main")
        == b"token is s3cret\ncontent\n"
    )
    bound = await cluster.get(CLAIM, NAMESPACE, "cache")
    volume = await cluster.get(VOLUME, None, bound["spec"]["volumeName"])
    assert (bound["status"]["phase"], bound["spec"]["storageClassName"]) == ("Bound", "lab")
    assert content_of(volume, "file") == "content\n"


async def test_a_failing_job_reports_its_exit_code_and_fails(
    cluster: Cluster, node: Children, until: Wait
) -> None:
    await create(cluster, job("fail", pod_template("echo broken; exit 11")))
    failed = await until(JOB, "fail", lambda body: is_true(body, "Failed"))
    assert failed["status"]["failed"] == 1
    assert {one["reason"] for one in failed["status"]["conditions"]} == {"BackoffLimitExceeded"}
    [ran] = await pods_of(cluster, "fail")
    assert ran["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 11


async def test_a_job_past_its_deadline_fails_and_its_process_ends(
    cluster: Cluster, node: Children, until: Wait, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    script = f"{PRINT_PID} > {mark}; exec sleep 60"
    await create(cluster, job("late", pod_template(script), activeDeadlineSeconds=600))
    await eventually(lambda: has_started(mark), "the process runs")
    await cluster.merge_patch(JOB, NAMESPACE, "late", {"spec": {"activeDeadlineSeconds": 1}})
    failed = await until(JOB, "late", lambda body: is_true(body, "Failed"))
    assert {one["reason"] for one in failed["status"]["conditions"]} == {"DeadlineExceeded"}
    await eventually(lambda: no_pods(cluster), "the pod is deleted")
    assert not is_alive(mark)


async def test_what_keeps_a_pod_from_starting_is_reported_and_heals(
    cluster: Cluster, node: Children, until: Wait
) -> None:
    gpus = {"resources": {"limits": {"amd.com/gpu": "9"}}}
    reference = {"secretKeyRef": {"name": "late", "key": "token"}}
    await create(cluster, pod("no-image", pod_template("true", image="nowhere/nothing:1")))
    await create(
        cluster,
        pod("no-secret", pod_template("true", env=[{"name": "TOKEN", "valueFrom": reference}])),
    )
    await create(cluster, pod("too-big", pod_template("true", **gpus)))

    await until(POD, "no-image", lambda body: waiting_reason(body) == "ErrImagePull")
    await until(POD, "no-image", lambda body: waiting_reason(body) == "ImagePullBackOff")
    stuck = await until(
        POD, "no-secret", lambda body: waiting_reason(body) == "CreateContainerConfigError"
    )
    assert (
        stuck["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        == 'secret "late" not found'
    )
    big = await until(POD, "too-big", lambda body: bool(body.get("status", {}).get("conditions")))
    assert big["status"]["conditions"][0]["reason"] == "Unschedulable"
    assert "1 Insufficient amd.com/gpu" in big["status"]["conditions"][0]["message"]

    await create(cluster, secret("late", token="x"))
    await until(POD, "no-secret", lambda body: phase_of(body) == "Succeeded")


async def test_a_claim_that_waits_is_bound_with_its_first_pod(
    cluster: Cluster, node: Children, until: Wait
) -> None:
    await create(cluster, claim("wait", storageClassName="lab-wait"))
    await create(cluster, claim("unknown", storageClassName="nowhere"))
    await create(cluster, claim("now"))
    await until(CLAIM, "now", lambda body: phase_of(body) == "Bound")
    assert phase_of(await cluster.get(CLAIM, NAMESPACE, "wait")) == "Pending"
    template = pod_template("true")
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "wait"}}]
    await create(cluster, pod("first", template, volumes=volumes))
    await until(POD, "first", lambda body: phase_of(body) == "Succeeded")
    assert phase_of(await cluster.get(CLAIM, NAMESPACE, "wait")) == "Bound"
    assert phase_of(await cluster.get(CLAIM, NAMESPACE, "unknown")) == "Pending"


async def test_a_deleted_pod_gets_sigterm_and_goes(
    cluster: Cluster, node: Children, until: Wait, tmp_path: Path
) -> None:
    output = tmp_path / "signals"
    script = f"trap 'echo terminated > {output}; exit 0' TERM; while true; do sleep 0.05; done"
    await create(cluster, pod("stubborn", pod_template(script)))
    await until(POD, "stubborn", lambda body: phase_of(body) == "Running")
    await cluster.delete(POD, NAMESPACE, "stubborn", grace_period_s=10)
    await eventually(lambda: no_pods(cluster), "the pod is deleted")
    assert output.read_text() == "terminated\n"


async def test_nothing_is_left_running_when_the_node_ends(
    cluster: Cluster, node: Children, until: Wait, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    await create(cluster, pod("long", pod_template(f"{PRINT_PID} > {mark}; exec sleep 300")))
    await until(POD, "long", lambda body: phase_of(body) == "Running")
    await eventually(lambda: has_started(mark), "the process runs")
    assert await node.stop("node") == 0
    assert not is_alive(mark)


async def test_a_killed_node_ends_its_processes_and_the_next_restarts(
    cluster: Cluster, node: Children, until: Wait, tmp_path: Path, start_node: Start
) -> None:
    mark = tmp_path / "pid"
    script = f"{PRINT_PID} > {mark}; exec sleep 300"
    await create(cluster, job("once", pod_template("exec sleep 300")))
    await create(cluster, pod("always", pod_template(script), restartPolicy="Always"))
    await until(POD, "always", lambda body: phase_of(body) == "Running")
    await eventually(lambda: has_started(mark), "the process runs")
    await until(JOB, "once", lambda body: body.get("status", {}).get("ready") == 1)
    await node.kill("node")
    await eventually(lambda: lives(mark, False), "the process has ended")

    await start_node()
    again = await until(
        POD,
        "always",
        lambda body: (
            restarts_of(body) == 1 and "running" in body["status"]["containerStatuses"][0]["state"]
        ),
    )
    assert (
        again["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"]
        == "ContainerStatusUnknown"
    )
    await eventually(lambda: lives(mark, True), "the process is there again")
    await until(JOB, "once", lambda body: is_true(body, "Failed"))


async def test_a_log_is_followed_line_by_line_until_the_container_ends(
    cluster: Cluster, node: Children, until: Wait, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    await create(
        cluster,
        pod(
            "talks",
            pod_template(
                f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two; echo three"
            ),
        ),
    )
    await until(POD, "talks", lambda body: phase_of(body) == "Running")
    lines = []
    async for line in cluster.follow_log(NAMESPACE, "talks", "main"):
        lines.append(line)
        go.touch()
    assert lines == [b"one", b"two", b"three"]
    assert await cluster.read_log(NAMESPACE, "talks", "main", limit_bytes=5) == b"one\nt"


async def test_a_deleted_claim_loses_its_folder_once_unused(
    cluster: Cluster, node: Children, until: Wait
) -> None:
    await create(cluster, claim("cache"))
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "cache"}}]
    await create(
        cluster,
        pod(
            "user",
            pod_template("exec sleep 300", volumeMounts=[{"name": "data", "mountPath": "/cache"}]),
            volumes=volumes,
        ),
    )
    await until(POD, "user", lambda body: phase_of(body) == "Running")
    bound = await cluster.get(CLAIM, NAMESPACE, "cache")
    folder = Path(
        (await cluster.get(VOLUME, None, bound["spec"]["volumeName"]))["spec"]["hostPath"]["path"]
    )
    await cluster.delete(CLAIM, NAMESPACE, "cache")
    await until(CLAIM, "cache", lambda body: "deletionTimestamp" in body["metadata"])
    assert not await is_deleted(cluster, folder)
    await cluster.delete(POD, NAMESPACE, "user", grace_period_s=1)
    await eventually(lambda: is_deleted(cluster, folder), "the volume is deleted")
    assert not (await cluster.list(CLAIM, NAMESPACE)).items


def test_a_process_dies_with_its_starter_however_that_ends(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    starter = f"""
import asyncio, os, signal
from pathlib import Path
from aimctl.local.processes import Children
from aimlab.testing import NAMESPACE, Start, Wait, eventually

async def main():
    async with Children(Path({str(tmp_path)!r})) as children:
        process = await children.start("child", ["sleep", "300"])
        Path({str(mark)!r}).write_text(str(process.pid))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    killed = subprocess.run([sys.executable, "-c", starter], check=False, timeout=30)
    assert killed.returncode == -9
    give_up = time.monotonic() + 5
    while is_alive(mark) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not is_alive(mark)


def trouble(images: Path, **entry: Any) -> None:
    """The image `trouble` runs a shell, and has this in the table."""
    known = read_images(images)
    write_images(images, known | {"trouble": ImageCommand(("/bin/sh",), **entry)})


def ended_of(body: Body, name: str = "main") -> Body:
    """How the container ended, empty while it has not."""
    statuses = body.get("status", {}).get("containerStatuses") or []
    return next(
        (one["state"].get("terminated") or {} for one in statuses if one["name"] == name), {}
    )


async def test_a_sidecar_keeps_pod_and_job_active(
    node: Children, cluster: Cluster, until: Wait
) -> None:
    await cluster.merge_patch(
        RESOURCES["Namespace"],
        None,
        NAMESPACE,
        {"metadata": {"labels": {"istio-injection": "enabled"}}},
    )
    await create(cluster, job("kept", pod_template("exit 11")))
    await eventually(lambda: has_pods(cluster, "kept"), "the pod of the Job")
    (of_job,) = await pods_of(cluster, "kept")
    body = await until(POD, of_job["metadata"]["name"], lambda body: bool(ended_of(body)))
    assert ended_of(body)["exitCode"] == 11
    assert phase_of(body) == "Running"
    assert (await cluster.get(JOB, NAMESPACE, "kept"))["status"].get("conditions") is None


async def has_pods(cluster: Cluster, job_name: str) -> bool:
    return bool(await pods_of(cluster, job_name))


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "Evicted", "NodeLost"])
async def test_a_pod_fails_with_the_requested_reason(
    node: Children, cluster: Cluster, images: Path, until: Wait, reason: str
) -> None:
    trouble(images, pod_fails=Trouble(reason, "no healthy devices present"))
    await create(cluster, pod("unlucky", pod_template("exit 0", image="trouble")))
    body = await until(POD, "unlucky", lambda body: phase_of(body) == "Failed")
    assert (body["status"]["reason"], body["status"]["message"]) == (
        reason,
        "no healthy devices present",
    )
    assert not ended_of(body)


async def test_a_container_reports_that_it_ran_out_of_memory(
    node: Children, cluster: Cluster, images: Path, until: Wait
) -> None:
    trouble(images, end_reason="OOMKilled")
    await create(cluster, pod("large", pod_template("kill -9 $$$$", image="trouble")))
    body = await until(POD, "large", lambda body: phase_of(body) == "Failed")
    assert (ended_of(body)["exitCode"], ended_of(body)["reason"]) == (137, "OOMKilled")


async def test_a_pod_that_cannot_start_has_events_with_the_cause(
    node: Children, cluster: Cluster, images: Path, until: Wait
) -> None:
    trouble(images, cannot_start=Trouble("FailedAttachVolume", "Multi-Attach error for volume x"))
    made = await create(cluster, pod("stuck", pod_template("exit 0", image="trouble")))
    fields = {CORE_EVENT: "involvedObject.uid", RESOURCES["Event"]: "regarding.uid"}

    async def events(kind: Resource) -> list[Body]:
        return list(
            (
                await cluster.list(
                    kind, NAMESPACE, field_selector=f"{fields[kind]}={made['metadata']['uid']}"
                )
            ).items
        )

    async def has_event() -> bool:
        return bool(await events(CORE_EVENT))

    await eventually(has_event, "an Event on the pod")
    (old,), (new,) = await events(CORE_EVENT), await events(RESOURCES["Event"])
    assert (old["type"], old["reason"], old["message"]) == (
        "Warning",
        "FailedAttachVolume",
        "Multi-Attach error for volume x",
    )
    assert (new["reason"], new["note"]) == (old["reason"], old["message"])
    assert waiting_reason(await cluster.get(POD, NAMESPACE, "stuck")) in {"", "ContainerCreating"}
    trouble(images)
    await until(POD, "stuck", lambda body: phase_of(body) == "Succeeded")


async def test_a_missing_config_map_is_a_failed_mount(node: Children, cluster: Cluster) -> None:
    volumes = [{"name": "v", "configMap": {"name": "nowhere"}}]
    made = await create(cluster, pod("waits", pod_template("exit 0"), volumes=volumes))

    async def has_event() -> bool:
        selector = f"involvedObject.uid={made['metadata']['uid']},reason=FailedMount"
        return bool((await cluster.list(CORE_EVENT, NAMESPACE, field_selector=selector)).items)

    await eventually(has_event, "a FailedMount Event")


async def test_a_claim_that_asks_for_more_gets_it(
    node: Children, cluster: Cluster, until: Wait
) -> None:
    await create(cluster, claim("grows"))
    bound = await until(CLAIM, "grows", lambda body: phase_of(body) == "Bound")
    await cluster.merge_patch(
        CLAIM, NAMESPACE, "grows", {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
    )
    await until(CLAIM, "grows", lambda body: body["status"]["capacity"] == {"storage": "3Gi"})
    assert (await cluster.get(VOLUME, None, bound["spec"]["volumeName"]))["spec"]["capacity"] == {
        "storage": "3Gi"
    }
