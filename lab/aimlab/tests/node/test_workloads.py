"""Deployments and StatefulSets become pods, step by step, and names of Services become
addresses."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aimlab.controller_loop import Create, Delete, Patch
from aimlab.informer import Objects
from aimlab.node.events import CORE_EVENT
from aimlab.node.launch import address_of
from aimlab.node.service_proxy import HOSTS, UnknownNameError, backends, resolve_names
from aimlab.node.workloads import plan
from aimschema.resources import CLAIM, DEPLOYMENT, POD

Body = dict[str, Any]
NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
LABELS = {"app": "bus"}
PORT = {"name": "client", "containerPort": 4222}
CLAIMS = [{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]
SERVICE: Body = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "bus", "namespace": "ns", "uid": "svc"},
    "spec": {"selector": LABELS, "ports": [{"port": 4222, "targetPort": "client"}]},
}
HEADLESS = {**SERVICE, "spec": {**SERVICE["spec"], "clusterIP": "None"}}


def workload(kind: str, replicas: int, image: str = "bus:1", **spec: Any) -> Body:
    template = {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [{"name": "bus", "image": image, "ports": [PORT]}]},
    }
    metadata = {"name": "bus", "namespace": "ns", "uid": f"{kind}-1", "generation": 1}
    workload_spec = {
        "replicas": replicas,
        "selector": {"matchLabels": LABELS},
        "template": template,
        **spec,
    }
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": workload_spec}


class Cluster:
    """Objects to which the plan is applied; pods become ready on request."""

    def __init__(self, *bodies: Body) -> None:
        self.objects = Objects(bodies)
        self.now = NOW
        self.rejects = ""

    def deployment(self) -> Body:
        (body,) = self.objects.all(DEPLOYMENT)
        return body

    def progressing(self) -> tuple[str, str]:
        (found,) = [
            one for one in self.deployment()["status"]["conditions"] if one["type"] == "Progressing"
        ]
        return found["status"], found["reason"]

    def step(self) -> list[str]:
        """One reconcile; returns its actions as text."""
        return [
            word for write in plan(self.objects, self.now).writes for word in self._carry_out(write)
        ]

    def _carry_out(self, write: object) -> list[str]:
        match write:
            case Create(resource=resource, rejected=rejected) if self.rejects and resource is POD:
                assert rejected is not None
                return [
                    word for instead in rejected(self.rejects) for word in self._carry_out(instead)
                ]
            case Create(body=body):
                name = body["metadata"]["name"]
                self.objects.put(
                    body["kind"], {**body, "metadata": {**body["metadata"], "uid": name}}
                )
                return [f"make {body['kind']} {name}"]
            case Delete(name=name):
                self.objects.drop(POD.kind, {"metadata": {"name": name, "namespace": "ns"}})
                return [f"delete {name}"]
            case Patch(resource=resource, namespace=namespace, name=name, body=patch):
                existing = self.objects.find(resource, namespace, name)
                assert existing is not None
                self.objects.put(resource.kind, {**existing, "status": patch["status"]})
                return []
            case _:
                raise AssertionError(write)

    def ready(self) -> None:
        for pod in self.objects.all(POD):
            status = {
                "podIP": address_of(pod["metadata"]["uid"]),
                "conditions": [{"type": "Ready", "status": "True"}],
            }
            self.objects.put(POD.kind, {**pod, "status": status})

    def settle(self) -> list[str]:
        """Passes until nothing is left to do, with every pod ready after each."""
        done: list[str] = []
        while step := self.step():
            done += step
            self.ready()
        return done


def test_a_deployment_gets_pods_and_counts_the_ready_ones() -> None:
    cluster = Cluster(workload("Deployment", 2))
    assert len(cluster.settle()) == 2
    (body,) = cluster.objects.all(DEPLOYMENT)
    counts = {
        name: body["status"].get(name)
        for name in ("replicas", "readyReplicas", "updatedReplicas", "observedGeneration")
    }
    assert counts == {
        "replicas": 2,
        "readyReplicas": 2,
        "updatedReplicas": 2,
        "observedGeneration": 1,
    }
    assert [(c["type"], c["status"]) for c in body["status"]["conditions"]] == [
        ("Available", "True")
    ]


def test_a_deployment_without_progress_is_late_until_it_moves_on() -> None:
    cluster = Cluster(workload("Deployment", 1, progressDeadlineSeconds=60))
    cluster.step()
    cluster.step()
    assert cluster.progressing() == ("True", "ReplicaSetUpdated")
    assert plan(cluster.objects, NOW).requeue_after_s == 60
    cluster.now += timedelta(seconds=60)
    cluster.step()
    assert cluster.progressing() == ("False", "ProgressDeadlineExceeded")
    cluster.ready()
    cluster.step()
    assert cluster.progressing() == ("True", "NewReplicaSetAvailable")


def test_a_template_changed_back_is_complete_again() -> None:
    """Within a pass of each other: the old pod never goes."""
    cluster = Cluster(workload("Deployment", 1, progressDeadlineSeconds=60))
    cluster.settle()
    first = cluster.deployment()
    template = {
        **first["spec"]["template"],
        "metadata": {
            "labels": {**first["spec"]["template"]["metadata"]["labels"], "edited": "yes"}
        },
    }
    cluster.objects.put("Deployment", {**first, "spec": {**first["spec"], "template": template}})
    (report,) = [
        write
        for write in plan(cluster.objects, cluster.now).writes
        if isinstance(write, Patch) and write.resource is DEPLOYMENT
    ]
    cluster.objects.put(
        "Deployment",
        {**cluster.deployment(), "spec": first["spec"], "status": report.body["status"]},
    )
    cluster.step()
    cluster.step()
    assert cluster.progressing() == ("True", "NewReplicaSetAvailable")


def test_a_rejected_pod_is_a_replica_failure_and_an_event() -> None:
    cluster = Cluster(workload("Deployment", 1))
    cluster.rejects = 'pods "bus-1" is forbidden: exceeded quota: q'
    assert [word.partition(" bus")[0] for word in cluster.step()] == ["make Event"]
    (event,) = cluster.objects.all(CORE_EVENT)
    assert (event["reason"], event["message"]) == (
        "FailedCreate",
        f"Error creating: {cluster.rejects}",
    )
    cluster.rejects = 'pods "bus-1" is forbidden: exceeded quota: another'
    cluster.step()
    (failure,) = [
        one
        for one in cluster.deployment()["status"]["conditions"]
        if one["type"] == "ReplicaFailure"
    ]
    assert (failure["reason"], failure["message"]) == (
        "FailedCreate",
        'pods "bus-1" is forbidden: exceeded quota: q',
    )
    cluster.rejects = ""
    cluster.settle()
    assert [one["type"] for one in cluster.deployment()["status"]["conditions"]] == ["Available"]


def test_a_new_image_replaces_the_pods_of_a_deployment() -> None:
    cluster = Cluster(workload("Deployment", 2))
    cluster.settle()
    cluster.objects.put("Deployment", workload("Deployment", 2, image="bus:2"))
    cluster.settle()
    assert [pod["spec"]["containers"][0]["image"] for pod in cluster.objects.all(POD)] == [
        "bus:2"
    ] * 2


def test_a_stateful_set_makes_pods_in_order_with_a_claim_each() -> None:
    cluster = Cluster(workload("StatefulSet", 2, volumeClaimTemplates=CLAIMS))
    assert cluster.step() == ["make PersistentVolumeClaim data-bus-0", "make Pod bus-0"]
    assert cluster.step() == []
    cluster.ready()
    assert cluster.step() == ["make PersistentVolumeClaim data-bus-1", "make Pod bus-1"]
    first, _ = cluster.objects.all(POD)
    assert first["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-bus-0"}}
    ]


def test_a_stateful_set_rolls_from_the_last_pod_and_keeps_claims() -> None:
    cluster = Cluster(
        workload("StatefulSet", 2, volumeClaimTemplates=CLAIMS, podManagementPolicy="Parallel")
    )
    cluster.settle()
    cluster.objects.put(
        "StatefulSet",
        workload(
            "StatefulSet",
            2,
            image="bus:2",
            volumeClaimTemplates=CLAIMS,
            podManagementPolicy="Parallel",
        ),
    )
    assert cluster.settle() == ["delete bus-1", "make Pod bus-1", "delete bus-0", "make Pod bus-0"]
    assert len(cluster.objects.all(CLAIM)) == 2


def test_a_pod_too_many_goes() -> None:
    cluster = Cluster(workload("StatefulSet", 2))
    cluster.settle()
    cluster.objects.put("StatefulSet", workload("StatefulSet", 1))
    assert cluster.settle() == ["delete bus-1"]


@pytest.mark.parametrize("host", ["bus.ns.svc", "bus.ns.svc.cluster.local"])
def test_a_name_becomes_the_address_of_the_service(host: str) -> None:
    env = {"URL": f"nats://{host}:4222", "PLAIN": "bus.ns"}
    assert resolve_names(env, Objects([SERVICE])) == {
        "URL": f"nats://{address_of('svc')}:4222",
        "PLAIN": "bus.ns",
    }


def test_a_certified_name_stays_with_its_address_beside_it() -> None:
    env = {"URL": "tls://bus.ns.svc:4222", "OTHER": "nats://bus.ns.svc:4222"}
    address = address_of("svc")
    assert resolve_names(env, Objects([SERVICE])) == {
        "URL": env["URL"],
        "OTHER": f"nats://{address}:4222",
        HOSTS: f"bus.ns.svc={address}",
    }


def test_a_process_of_the_pod_resolves_such_a_name(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import socket; print(*{found[4][0] for found in socket.getaddrinfo('bus.ns.svc', 4222)})"
    )
    command = [
        sys.executable,
        "-m",
        "aimlab.node.network_namespace_shim",
        str(tmp_path / "script.py"),
    ]
    env = {HOSTS: "bus.ns.svc=127.130.1.2", "AIMLAB_POD_IP": "127.130.1.1"}
    assert (
        subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        == "127.130.1.2\n"
    )


@pytest.mark.parametrize(
    "objects", [Objects(), Objects([HEADLESS])], ids=["no Service", "headless"]
)
def test_a_name_without_an_address_is_reported(objects: Objects) -> None:
    with pytest.raises(UnknownNameError, match="no Service ns/bus has an address"):
        resolve_names({"URL": "nats://bus.ns.svc:4222"}, objects)


def test_connections_go_to_the_ready_pods_of_the_selector() -> None:
    cluster = Cluster(workload("Deployment", 2))
    (port,) = SERVICE["spec"]["ports"]
    cluster.step()
    assert backends(SERVICE, port, cluster.objects) == []
    cluster.ready()
    ips = {pod["status"]["podIP"] for pod in cluster.objects.all(POD)}
    assert set(backends(SERVICE, port, cluster.objects)) == {(ip, 4222) for ip in ips}
