"""Node groups are read off the clouds' labels; storage classes are known by who makes their volumes."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes_asyncio.client import models

from moorage.domain.cluster import FoundGroup, GpuNode, NodeShape
from moorage.domain.compute import GIB
from moorage.domain.workload import AccessMode
from moorage_kubernetes.gpus import MIB
from moorage_kubernetes.groups import found_groups, gpu_nodes
from moorage_kubernetes.nodes import node_states
from moorage_kubernetes.permissions import NEEDS, asked
from moorage_kubernetes.storage_classes import access_modes, storage_classes

from .hardware import L4, container, node, pod

EKS = {"eks.amazonaws.com/nodegroup": "gpu", "eks.amazonaws.com/capacityType": "SPOT"}
PLACE = {"topology.kubernetes.io/region": "eu-west-1", "node.kubernetes.io/instance-type": "g6.xlarge"}


def groups(*nodes: Any) -> tuple[FoundGroup, ...]:
    return found_groups(node_states(nodes, []))


def test_a_group_with_all_that_its_labels_tell() -> None:
    labels = {**EKS, **PLACE, **L4}
    assert groups(
        node("a", labels, cpu="3920m", memory="15Gi", gpus=1),
        node("b", labels, cpu="4", memory="14Gi", gpus=1),
    ) == (
        FoundGroup(
            name="gpu",
            selector={"eks.amazonaws.com/nodegroup": "gpu"},
            nodes=2,
            shape=NodeShape(3.92, 14 * GIB, "NVIDIA-L4", 1, 23034 * MIB),
            instance_type="g6.xlarge",
            region="eu-west-1",
            spot=True,
        ),
    )


@pytest.mark.parametrize(
    ("label", "spot"),
    [
        ("eks.amazonaws.com/nodegroup", {"eks.amazonaws.com/capacityType": "SPOT"}),
        ("cloud.google.com/gke-nodepool", {"cloud.google.com/gke-spot": "true"}),
        ("kubernetes.azure.com/agentpool", {"kubernetes.azure.com/scalesetpriority": "spot"}),
        ("karpenter.sh/nodepool", {"karpenter.sh/capacity-type": "spot"}),
    ],
)
def test_each_clouds_groups_and_spot(label: str, spot: dict[str, str]) -> None:
    (found,) = groups(node(labels={label: "pool", **spot}))
    assert (found.name, found.selector, found.spot) == ("pool", {label: "pool"}, True)
    (mixed,) = groups(node("a", {label: "pool", **spot}), node("b", {label: "pool"}))
    assert not mixed.spot, "not all of it"


def test_a_node_is_in_one_group_and_a_bare_one_in_none() -> None:
    both = {"kubernetes.azure.com/agentpool": "gpu", "agentpool": "gpu"}
    assert len(groups(node("a", both), node("b", {"pool": "x"}))) == 1


def test_what_the_nodes_of_a_group_do_not_share_is_not_told_of_it() -> None:
    pool = {"karpenter.sh/nodepool": "any"}
    (found,) = groups(node("a", {**pool, **PLACE, **L4}, gpus=1), node("b", pool))
    assert (found.shape, found.instance_type, found.region) == (None, None, None)


def test_gpu_nodes_with_what_is_free_for_us() -> None:
    nodes = [node("b", {}, gpus=2), node("a", L4, gpus=4), node("c", L4, gpus=1, cordoned=True), node("d")]
    busy = pod("a", container({"nvidia.com/gpu": "3"}))
    assert gpu_nodes(node_states(nodes, [busy])) == (
        GpuNode("a", "NVIDIA-L4", 23034 * MIB, 4, 1),
        GpuNode("b", "unknown GPU", None, 2, 2),
        GpuNode("c", "NVIDIA-L4", 23034 * MIB, 1, 0),
    )


@pytest.mark.parametrize(
    ("provisioner", "many", "readers"),
    [
        ("ebs.csi.aws.com", False, False),
        ("disk.csi.azure.com", False, False),
        ("pd.csi.storage.gke.io", False, True),
        ("efs.csi.aws.com", True, True),
        ("filestore.csi.storage.gke.io", True, True),
        ("file.csi.azure.com", True, True),
        ("nfs.csi.k8s.io", True, True),
        ("driver.longhorn.io", True, True),
        ("rook-ceph.cephfs.csi.ceph.com", True, True),
        ("rook-ceph.rbd.csi.ceph.com", False, True),
        ("cluster.local/nfs-subdir-external-provisioner", True, True),
        ("rancher.io/local-path", False, False),
    ],
)
def test_provisioners_are_known_for_what_they_can_do(provisioner: str, many: bool, readers: bool) -> None:
    modes = access_modes(provisioner)
    assert AccessMode.READ_WRITE_ONCE in modes
    assert (AccessMode.READ_WRITE_MANY in modes, AccessMode.READ_ONLY_MANY in modes) == (many, readers)


def test_an_unknown_provisioner_has_no_known_modes() -> None:
    assert access_modes("disks.example.com") == ()
    assert access_modes("notrbd.csi.ceph.com") == ()


def test_the_default_class_comes_first() -> None:
    def made(name: str, **annotations: str) -> Any:
        named = {f"storageclass.kubernetes.io/{key.replace('_', '-')}": v for key, v in annotations.items()}
        return models.V1StorageClass(
            metadata=models.V1ObjectMeta(name=name, annotations=named or None), provisioner="efs.csi.aws.com"
        )

    found = storage_classes(
        [made("a", is_default_class="false"), made("b", is_default_class="true"), made("c")]
    )
    assert [(c.name, c.default) for c in found] == [("b", True), ("a", False), ("c", False)]


def test_each_need_is_asked_for_where_it_is_needed() -> None:
    reviews = [attributes for _, _, attributes in asked("moorage")]
    assert len(reviews) == sum(len(need.verbs) for need in NEEDS)
    assert {
        "verb": "get",
        "group": "",
        "resource": "pods",
        "subresource": "log",
        "namespace": "moorage",
    } in reviews
    assert {"verb": "list", "group": "", "resource": "nodes"} in reviews
    assert {need.name for need in NEEDS} >= {
        "deployments.apps",
        "pods/log",
        "secrets",
        "scaledobjects.keda.sh",
    }
