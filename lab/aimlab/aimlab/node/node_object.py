"""The one Node of the laptop cluster: a machine with eight MI300X that are not there."""

from datetime import datetime

from aimlab.kinds import Body, stamp

NAME = "lab"
ADDRESS = "127.0.0.1"
CAPACITY = {
    "cpu": "256",
    "memory": "2Ti",
    "ephemeral-storage": "1Ti",
    "pods": "250",
    "amd.com/gpu": "8",
}
LABELS = {
    "kubernetes.io/hostname": NAME,
    "kubernetes.io/os": "linux",
    "kubernetes.io/arch": "amd64",
    "amd.com/gpu.device-id": "74a1",
}


def node_object() -> Body:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": LABELS}}


def node_status(kubelet_port: int, now: datetime) -> Body:
    """The status as a kubelet reports it; logs are served in https on `kubelet_port`.

    kube-apiserver asks at the Hostname before the InternalIP (`--kubelet-preferred-address-types`),
    so both are the address.
    """
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
    }
    return {
        "capacity": CAPACITY,
        "allocatable": CAPACITY,
        "addresses": [
            {"type": "InternalIP", "address": ADDRESS},
            {"type": "Hostname", "address": ADDRESS},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        "conditions": [ready | {"lastHeartbeatTime": stamp(now), "lastTransitionTime": stamp(now)}],
        "nodeInfo": {
            "operatingSystem": "linux",
            "architecture": "amd64",
            "kubeletVersion": "v1.36.2",
            "containerRuntimeVersion": "processes://1",
        },
    }
