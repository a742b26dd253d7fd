"""Offers promise what a scheduler would grant: whole replicas on single nodes, free or to come."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.cluster import NodeGroup, NodeShape
from moorage.domain.compute import GIB, Availability, Offer, PlacementPolicy, Requirements
from moorage.domain.placement import place
from moorage.domain.workload import Resources
from moorage_kubernetes.nodes import node_states
from moorage_kubernetes.offers import NO_PRICE, make_offers

from .hardware import L4, POOL, container, group, need, node, pod

TODAY = date(2026, 11, 21)
GPU_POOL = {**POOL, **L4}
GPU_OPTION = (True, 10.0)
CPU_OPTION = (False, 10.0)


def offers(
    asked: Requirements, *nodes: Any, pods: tuple[Any, ...] = (), of: NodeGroup | None = None
) -> list[Offer]:
    return make_offers(asked, [of or group()], node_states(nodes, pods), TODAY)


def one(asked: Requirements, *nodes: Any, pods: tuple[Any, ...] = (), of: NodeGroup | None = None) -> Offer:
    (offer,) = offers(asked, *nodes, pods=pods, of=of)
    return offer


def test_a_gpu_node_is_an_offer_of_one_of_its_gpus() -> None:
    offer = one(need(GPU_OPTION), node(labels=GPU_POOL, gpus=4), of=group(price=4.0))
    assert (offer.id, offer.gpu, offer.count, offer.compute_capability) == ("ngp_a", "L4", 1, 8.9)
    assert offer.memory_bytes == 23034 * 1024**2
    assert offer.usable_bytes == int(24 * GIB * 0.92)
    assert offer.price_per_hour == 1.0, "a quarter of the node"
    assert offer.price_source == "made up for tests; 25% of a node"
    assert offer.price_as_of == "2026-11-01"
    assert offer.availability is Availability.HIGH
    assert offer.note == "4 of 4 GPUs free on 1 node"
    assert offer.ref == {"selector": json.dumps(POOL), "gpus": "1", "node_group": "ngp_a"}


def test_a_model_that_can_be_shared_is_offered_several_gpus() -> None:
    found = offers(need(GPU_OPTION, shards=True), node(labels=GPU_POOL, gpus=4))
    assert [(o.id, o.count) for o in found] == [("ngp_a", 1), ("ngp_a/x2", 2), ("ngp_a/x4", 4)]
    assert found[2].usable_bytes == 4 * found[0].usable_bytes
    assert found[2].price_per_hour == 2.0, "the whole node"


def test_parts_of_a_card_are_offered_one_by_one() -> None:
    shared = {
        **POOL,
        "nvidia.com/gpu.product": "Tesla-T4-SHARED",
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.memory": "15360",
    }
    assert [o.count for o in offers(need(GPU_OPTION, shards=True), node(labels=shared, gpus=4))] == [1]
    asked = one(need(resources=Resources(gpus=2)), node(labels=shared, gpus=4))
    assert asked.count == 2
    assert asked.usable_bytes <= asked.memory_bytes, "two turns on one card are not two cards"


def test_what_pods_took_is_gone() -> None:
    busy = pod("n1", container({"nvidia.com/gpu": "1"}))
    offer = one(need(GPU_OPTION), node(labels=GPU_POOL, gpus=1), pods=(busy,))
    assert offer.availability is Availability.NONE
    assert offer.note == ("0 of 1 GPU free on 1 node; room for 0 of 1 replicas of 1 core, 4.0 GiB, 1 GPU now")


def test_replicas_must_fit_together_each_on_one_node() -> None:
    nodes = [node(f"n{i}", cpu="4", memory="16Gi") for i in range(3)]
    asked = Resources(cpu_request=3, memory_request=8 * GIB)
    three = need(replicas=3, max_replicas=3, resources=asked)
    assert one(three, *nodes).availability is Availability.HIGH
    assert one(need(replicas=3, max_replicas=5, resources=asked), *nodes).availability is Availability.MEDIUM
    too_many = one(need(replicas=4, resources=asked), *nodes)
    assert too_many.availability is Availability.NONE, "12 cores together, but only 3 on each node"
    assert "room for 3 of 4 replicas of 3 cores, 8.0 GiB now" in (too_many.note or "")


def test_a_replica_larger_than_any_node_is_listed_with_the_numbers() -> None:
    big = one(need(resources=Resources(cpu_request=64, memory_request=GIB)), node(), of=group(max_nodes=9))
    assert big.availability is Availability.NONE
    assert "no node can hold a replica of 64 cores, 1.0 GiB: the largest has 8 cores, 32.0 GiB" in (
        big.note or ""
    )


def test_a_replica_fits_the_node_that_has_more_of_what_it_needs() -> None:
    nodes = [node("a", cpu="2", memory="64Gi"), node("b", cpu="16", memory="8Gi")]
    offer = one(need(resources=Resources(cpu_request=12, memory_request=GIB)), *nodes)
    assert offer.availability is Availability.HIGH
    assert "no node can hold" not in (offer.note or "")


def test_gpus_asked_of_nodes_without_are_listed_with_the_reason() -> None:
    offer = one(need(resources=Resources(gpus=2)), node(), of=group(max_nodes=9))
    assert (offer.availability, offer.gpu, offer.count) == (Availability.NONE, None, 0)
    assert "2 GPUs asked for each replica, its nodes have none" in (offer.note or "")


def test_a_replica_without_gpus_may_go_to_gpu_nodes_when_it_says_so() -> None:
    offer = one(need(resources=Resources(gpus=0)), node(labels=GPU_POOL, gpus=4))
    assert (offer.gpu, offer.count, offer.ref["gpus"]) == (None, 0, "0")
    assert offer.availability is Availability.HIGH


@pytest.mark.parametrize(
    "closed", [node("n2", cordoned=True), node("n2", ready=False), node("n2", taints={"team": "NoSchedule"})]
)
def test_nodes_that_take_no_pods_are_left_out(closed: Any) -> None:
    asked = need(replicas=2, resources=Resources(cpu_request=6))
    assert one(asked, node("n1"), node("n2")).availability is Availability.HIGH
    offer = one(asked, node("n1"), closed)
    assert offer.availability is Availability.NONE
    assert "1 node left out: " in (offer.note or "")
    assert offer.usable_bytes == 32 * GIB, "what a node has, whoever may use it now"


def test_a_group_that_may_grow_has_room_to_come() -> None:
    full = pod("n1", container({"nvidia.com/gpu": "1"}))
    growing = one(need(GPU_OPTION), node(labels=GPU_POOL, gpus=1), pods=(full,), of=group(max_nodes=3))
    assert growing.availability is Availability.LOW
    assert "2 more nodes may be added" in (growing.note or "")
    grown = one(need(GPU_OPTION), node(labels=GPU_POOL, gpus=1), pods=(full,), of=group(max_nodes=1))
    assert grown.availability is Availability.NONE


def test_a_group_of_no_nodes_is_known_by_its_shape() -> None:
    shape = NodeShape(cpus=8, memory_bytes=32 * GIB, gpu="NVIDIA-L4", gpus=1)
    offer = one(need(GPU_OPTION), of=group(shape=shape, max_nodes=2, price=0.8))
    assert (offer.gpu, offer.count, offer.availability) == ("L4", 1, Availability.LOW)
    assert offer.usable_bytes == int(24 * GIB * 0.92)
    assert offer.price_per_hour == 0.8
    given = NodeShape(cpus=8, memory_bytes=32 * GIB, gpu="Voodoo 2", gpus=1, gpu_memory_bytes=12 * GIB)
    assert one(need(GPU_OPTION), of=group(shape=given)).memory_bytes == 12 * GIB
    assert one(need(GPU_OPTION), of=group(shape=given)).availability is Availability.NONE, "and none may come"


def test_a_group_of_which_nothing_is_known_says_so_and_costs_a_whole_node() -> None:
    offer = one(need(CPU_OPTION), of=group(max_nodes=3))
    assert offer.availability is Availability.NONE
    assert offer.price_per_hour == 2.0
    assert offer.note == "the group has no node to look at, and nothing says what one would have"


def test_nodes_of_different_kinds_are_different_offers() -> None:
    t4 = {**POOL, "nvidia.com/gpu.product": "Tesla-T4"}
    nodes = [node("a", GPU_POOL, gpus=1), node("b", t4, gpus=1), node("c")]
    found = {o.gpu: o for o in offers(need(GPU_OPTION, CPU_OPTION), *nodes, of=group(max_nodes=9))}
    assert set(found) == {"L4", "T4", None}
    assert len({o.id for o in found.values()}) == 3
    assert json.loads(found["T4"].ref["selector"]) == t4
    assert json.loads(found[None].ref["selector"]) == POOL
    assert found["T4"].note == "1 of 1 GPU free on 1 node", "which kind would be added nobody knows"


def test_nodes_of_one_product_with_different_drivers_are_one_offer_of_the_older() -> None:
    def with_cuda(minor: str) -> dict[str, str]:
        return {**GPU_POOL, "nvidia.com/cuda.runtime.major": "12", "nvidia.com/cuda.runtime.minor": minor}

    offer = one(need(GPU_OPTION), node("a", with_cuda("8"), gpus=1), node("b", with_cuda("4"), gpus=1))
    assert offer.cuda == 12.4


def test_a_group_without_a_price_says_that_it_is_not_known() -> None:
    offer = one(need(CPU_OPTION), node(), of=group(price=None))
    assert (offer.price_per_hour, offer.price_source, offer.price_as_of) == (0.0, NO_PRICE, "2026-11-21")


def test_the_largest_share_of_a_node_is_paid() -> None:
    by_memory = one(need(resources=Resources(cpu_request=1, memory_request=24 * GIB)), node())
    assert by_memory.price_per_hour == 1.5, "24 of 32 GiB at 2 USD"
    by_cpu = one(need(resources=Resources(cpu_request=2, memory_request=GIB)), node())
    assert by_cpu.price_per_hour == 0.5


def test_a_memory_limit_is_all_that_a_replica_can_use() -> None:
    limited = need(CPU_OPTION, resources=Resources(memory_request=4 * GIB, memory_limit=8 * GIB))
    offer = one(limited, node())
    assert (offer.memory_bytes, offer.usable_bytes) == (32 * GIB, 8 * GIB)
    placed = place(limited.options, [offer], PlacementPolicy())
    assert not placed.ladder
    assert "needs 10.0 GiB, this offers 8.0 GiB" in placed.refused[0].reason


def test_a_gpu_of_unknown_memory_holds_images_only() -> None:
    orin = {**POOL, "nvidia.com/gpu.product": "Orin"}
    offer = one(need(GPU_OPTION), node(labels=orin, gpus=1))
    assert offer.usable_bytes == 0
    assert "no label tells the memory of its GPUs" in (offer.note or "")
    assert place(need().options, [one(need(), node(labels=orin, gpus=1))], PlacementPolicy()).ladder
    unlabelled = one(need(), node(gpus=1))
    assert unlabelled.gpu == "unknown GPU"


def test_only_nodes_of_the_selector_count() -> None:
    assert one(need(CPU_OPTION), node(), node("n2", {"pool": "b"})).note == (
        "8 of 8 cores and 32.0 of 32.0 GiB free on 1 node"
    )


@given(
    frees=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 64)), min_size=1, max_size=5),
    cores=st.integers(1, 8),
    gib=st.integers(1, 32),
    replicas=st.integers(1, 6),
)
def test_room_is_promised_just_when_a_scheduler_could_bind_all(
    frees: list[tuple[int, int]], cores: int, gib: int, replicas: int
) -> None:
    """Against binding one replica after the other to any node that has room."""
    nodes = [node(f"n{i}", cpu=str(c), memory=f"{g}Gi") for i, (c, g) in enumerate(frees)]
    asked = need(replicas=replicas, resources=Resources(cpu_request=cores, memory_request=gib * GIB))
    left = [list(free) for free in frees]
    bound = 0
    for _ in range(replicas):
        place_ = next((free for free in left if free[0] >= cores and free[1] >= gib), None)
        if place_ is not None:
            place_[0] -= cores
            place_[1] -= gib
            bound += 1
    assert (one(asked, *nodes).availability is not Availability.NONE) == (bound == replicas)
