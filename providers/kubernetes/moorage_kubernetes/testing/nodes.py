"""Nodes and storage classes as objects, from the few numbers that a test cares about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.statuses import Json

ACCESS_MODES = "stand-in.moorage.io/access-modes"
READ_WRITE_ONCE = ("ReadWriteOnce", "ReadWriteOncePod")
ANY_MODE = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")


def node(
    name: str, labels: Mapping[str, str], taints: Iterable[Mapping[str, str]], *, unschedulable: bool = False
) -> Json:
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    spec: Json = {"taints": [dict(taint) for taint in taints]}
    if unschedulable:
        spec["unschedulable"] = True
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**own, **labels}},
        "spec": spec,
    }


def node_status(cpu: float, memory_gib: float, gpus: int, pods: int, ready: bool) -> Json:
    """What a node has, and what of it pods may have: the same."""
    amounts = {
        "cpu": f"{round(cpu * 1000)}m" if cpu != int(cpu) else str(int(cpu)),
        "memory": f"{round(memory_gib * 1024)}Mi",
        "ephemeral-storage": "100Gi",
        "pods": str(pods),
    }
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    return {
        "capacity": amounts,
        "allocatable": dict(amounts),
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "reason": "KubeletReady" if ready else "KubeletNotReady",
                "message": "kubelet is posting ready status" if ready else "kubelet stopped posting",
                "lastHeartbeatTime": now(),
                "lastTransitionTime": now(),
            }
        ],
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": "",
            "containerRuntimeVersion": "containerd://2.1.0",
            "kernelVersion": "6.8.0",
            "kubeProxyVersion": "",
            "kubeletVersion": "v1.36.0",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "Debian GNU/Linux 13",
            "systemUUID": "",
        },
    }


def storage_class(
    name: str, access_modes: Iterable[str], provisioner: str, binding: str, *, default: bool
) -> Json:
    marks = {ACCESS_MODES: ",".join(access_modes)}
    if default:
        marks["storageclass.kubernetes.io/is-default-class"] = "true"
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": marks},
        "provisioner": provisioner,
        "volumeBindingMode": binding,
    }
