"""What is free on a node is what the scheduler would say, and its accelerators are known by their labels."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes_asyncio.client import models

from moorage.domain.compute import GIB
from moorage_kubernetes.gpus import MIB, accelerator_of, least, registered
from moorage_kubernetes.nodes import Amounts, node_states, requests_of
from moorage_registries import load

from .hardware import L4, container, node, pod

ASKS = {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "1"}


def free(*pods: Any) -> Amounts:
    return node_states([node(gpus=4)], pods)[0].free


def test_free_is_allocatable_without_the_requests_of_bound_pods() -> None:
    assert free() == Amounts(8, 32 * GIB, 4, 110)
    assert free(pod("n1", container(ASKS)), pod("n1", container({"cpu": "500m"}), container())) == Amounts(
        6.5, 28 * GIB, 3, 108
    )


def test_pods_elsewhere_nowhere_or_over_take_nothing() -> None:
    asks = container(ASKS)
    others = [
        pod("n2", asks),
        pod(None, asks),
        pod("n1", asks, phase="Succeeded"),
        pod("n1", asks, phase="Failed"),
    ]
    assert free(*others) == Amounts(8, 32 * GIB, 4, 110)
    assert free(pod("n1", asks, phase="Pending")).gpus == 3, "bound, and not yet started"


def test_an_overcommitted_node_has_nothing_left() -> None:
    assert free(pod("n1", container({"cpu": "99", "memory": "1Ti"}))) == Amounts(0, 0, 4, 109)


def test_init_containers_count_at_their_peak_and_sidecars_stay() -> None:
    asked = requests_of(
        pod(
            "n1",
            container({"cpu": "1", "memory": "1Gi"}),
            init_containers=[
                container({"cpu": "500m"}, restart_policy="Always"),
                container({"cpu": "4", "memory": "512Mi"}),
            ],
            overhead={"cpu": "250m", "memory": "64Mi"},
        )
    )
    assert asked == Amounts(4.75, 1024 * MIB + 64 * MIB, 0, 1)


def test_a_limit_alone_is_a_request_and_a_request_wins() -> None:
    assert requests_of(
        pod("n1", container({"cpu": "1"}, limits={"cpu": "4", "nvidia.com/gpu": "2"}))
    ) == Amounts(1, 0, 2, 1)


def test_requests_of_the_whole_pod_stand_for_those_of_its_containers() -> None:
    whole = models.V1ResourceRequirements(requests={"cpu": "3"})
    asked = requests_of(pod("n1", container({"cpu": "1", "memory": "1Gi"}), resources=whole))
    assert asked == Amounts(3, GIB, 0, 1)


def test_unreadable_amounts_count_as_none() -> None:
    state = node_states([node(cpu="many")], [])[0]
    assert (state.allocatable.cpu, state.allocatable.memory) == (0, 32 * GIB)


def test_a_node_without_status_is_not_ready() -> None:
    bare = models.V1Node(metadata=models.V1ObjectMeta(name="n"), spec=None, status=None)
    (state,) = node_states([bare], [])
    assert (state.closed, state.free) == ("not ready", Amounts())


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (node(), None),
        (node(taints={"nvidia.com/gpu": "NoSchedule"}), None),
        (node(taints={"team": "PreferNoSchedule"}), None),
        (node(taints={"team": "NoSchedule"}), "tainted team"),
        (
            node(taints={"node.kubernetes.io/disk-pressure": "NoSchedule"}),
            "tainted node.kubernetes.io/disk-pressure",
        ),
        (node(cordoned=True), "cordoned"),
        (node(ready=False), "not ready"),
        (node(labels={"kubernetes.io/os": "windows"}), "not Linux"),
    ],
)
def test_nodes_that_take_no_pod_of_ours_say_why(made: Any, why: str | None) -> None:
    assert node_states([made], [])[0].closed == why


@pytest.mark.parametrize(
    ("product", "memory", "name", "memory_mib", "capability"),
    [
        (("nvidia.com/gpu.product", "NVIDIA-L4"), 23034, "L4", 23034, 8.9),
        (("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB"), 81920, "A100 80GB", 81920, 8.0),
        (("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3"), 81559, "H100 80GB", 81559, 9.0),
        (("nvidia.com/gpu.product", "NVIDIA-Voodoo-2"), 12000, "NVIDIA Voodoo 2", 12000, None),
        (("cloud.google.com/gke-accelerator", "nvidia-l4"), None, "L4", 24 * 1024, 8.9),
        (("cloud.google.com/gke-accelerator", "nvidia-tesla-t4"), None, "T4", 16 * 1024, 7.5),
        (("cloud.google.com/gke-accelerator", "nvidia-tesla-a100"), None, "A100 40GB", 40 * 1024, 8.0),
        (("cloud.google.com/gke-accelerator", "nvidia-h100-mega-80gb"), None, "H100 80GB", 80 * 1024, 9.0),
        (("karpenter.k8s.aws/instance-gpu-name", "a100"), 81920, "A100 80GB", 81920, 8.0),
        (("karpenter.k8s.aws/instance-gpu-name", "a10g"), 24576, "A10G", 24576, 8.6),
    ],
)
def test_cards_are_known_by_their_labels(
    product: tuple[str, str], memory: int | None, name: str, memory_mib: int, capability: float | None
) -> None:
    label = product[0].rpartition("/")[0]
    memory_label = "nvidia.com/gpu.memory" if label == "nvidia.com" else f"{label}/instance-gpu-memory"
    found = accelerator_of({product[0]: product[1], **({memory_label: str(memory)} if memory else {})})
    assert found is not None
    assert (found.name, found.memory_bytes, found.compute_capability) == (name, memory_mib * MIB, capability)
    assert found.usable_bytes is not None
    assert 0.9 * memory_mib * MIB < found.usable_bytes < memory_mib * MIB
    assert found.whole


def test_a_mig_slice_has_its_own_memory() -> None:
    found = accelerator_of(
        {"nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/gpu.memory": "4864"}
    )
    assert found is not None
    assert (found.name, found.partition, found.whole) == ("A100 40GB MIG 1g.5gb", "1g.5gb", False)
    assert found.memory_bytes == 4864 * MIB
    gke = accelerator_of(
        {
            "cloud.google.com/gke-accelerator": "nvidia-a100-80gb",
            "cloud.google.com/gke-gpu-partition-size": "2g.20gb",
        }
    )
    assert gke is not None
    assert (gke.name, gke.memory_bytes) == ("A100 80GB MIG 2g.20gb", 20 * GIB)


def test_a_shared_card_gives_each_its_part() -> None:
    labels = {
        "nvidia.com/gpu.product": "Tesla-T4-SHARED",
        "nvidia.com/gpu.memory": "15360",
        "nvidia.com/gpu.replicas": "4",
    }
    found = accelerator_of(labels)
    assert found is not None
    assert (found.name, found.memory_bytes, found.whole) == ("T4 shared by 4", 15360 * MIB // 4, False)


def test_versions_that_labels_tell_win() -> None:
    found = accelerator_of(
        {
            **L4,
            "nvidia.com/gpu.compute.major": "8",
            "nvidia.com/gpu.compute.minor": "9",
            "nvidia.com/cuda.runtime.major": "12",
            "nvidia.com/cuda.runtime.minor": "8",
        }
    )
    assert found is not None
    assert (found.compute_capability, found.cuda) == (8.9, 12.8)
    older = accelerator_of(
        {**L4, "nvidia.com/cuda.runtime.major": "12", "nvidia.com/cuda.runtime.minor": "2"}
    )
    assert older is not None
    assert least([found, older]).cuda == 12.2


def test_no_label_is_no_card_and_no_number_is_no_memory() -> None:
    assert accelerator_of({"nvidia.com/gpu.memory": "23034"}) is None
    odd = accelerator_of({"nvidia.com/gpu.product": "Orin", "nvidia.com/gpu.memory": "plenty"})
    assert odd is not None
    assert (odd.memory_bytes, odd.usable_bytes) == (None, None)


def test_each_card_of_the_registry_is_found_by_the_label_a_driver_would_set() -> None:
    for gpu in load().gpus:
        for id_ in gpu.ids:
            found = registered(id_.replace(" ", "-"))
            assert found == gpu, id_
