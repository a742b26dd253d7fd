"""Which node groups a check leaves, and the rules of a declared one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.adapters.registry import catalog
from moorage.domain.cluster import FoundGroup, NodeGroup, NodeShape
from moorage.domain.naming import id_of, uuid_of
from moorage.domain.node_groups import NewNodeGroup, broken_rules, declared, group_id, regrouped
from moorage.testing.store_rows import NOW, after, cluster

CLUSTER = cluster()
GPU = FoundGroup(
    "gpu", {"eks.amazonaws.com/nodegroup": "gpu"}, 2, NodeShape(4.0, 2**34, "NVIDIA-L4", 1), "p5.48xlarge"
)
CPU = FoundGroup("cpu", {"eks.amazonaws.com/nodegroup": "cpu"}, 3, NodeShape(8.0, 2**35), "m7i.2xlarge")


def stored(*groups: NodeGroup) -> list[NodeGroup]:
    return [replace(group, version=1) for group in groups]


def test_an_id_follows_from_cluster_and_selector_and_is_a_uuid_too() -> None:
    one = group_id("cls_a", {"a": "1", "b": "2"})
    assert one == group_id("cls_a", {"b": "2", "a": "1"})
    assert len({one, group_id("cls_b", {"a": "1", "b": "2"}), group_id("cls_a", {"a": "1"})}) == 3
    assert id_of("ngp", uuid_of(one)) == one


def test_the_first_check_finds_groups_with_prices_of_the_registry() -> None:
    found = regrouped(CLUSTER, (), (GPU, replace(CPU, instance_type="m0.unheard-of")), catalog(), NOW)
    assert (found.changed, found.there) == ((), found.new)
    gpu, cpu = found.new
    listed = catalog().instance_price("p5.48xlarge")
    assert listed is not None
    assert (gpu.price_per_hour, gpu.price_as_of) == (listed.price_per_hour, listed.as_of)
    assert gpu.price_source
    assert (cpu.price_per_hour, cpu.price_source, cpu.price_as_of) == (None, None, None)
    assert all(group.discovered and group.cluster_id == CLUSTER.id for group in found.new)


def test_the_same_labels_change_nothing() -> None:
    known = stored(*regrouped(CLUSTER, (), (GPU, CPU), catalog(), NOW).new)
    again = regrouped(CLUSTER, known, (CPU, GPU), catalog(), after(60))
    assert (again.new, again.changed) == ((), ())
    assert list(again.there) == known


def test_groups_follow_the_nodes() -> None:
    known = stored(*regrouped(CLUSTER, (), (GPU, CPU), catalog(), NOW).new)
    bigger = replace(GPU, shape=NodeShape(8.0, 2**35, "NVIDIA-L4", 2))
    after_check = regrouped(CLUSTER, known, (bigger,), catalog(), after(60))
    grown, gone = after_check.changed
    assert (grown.shape, grown.created_at, grown.version) == (bigger.shape, NOW, 1)
    assert (gone.id, gone.removed_at) == (known[1].id, after(60))
    assert after_check.there == (grown,)


def test_a_declared_group_stays_whatever_a_check_finds() -> None:
    own = declared(CLUSTER, NewNodeGroup("mine", dict(GPU.selector), price_per_hour=2.0), NOW)
    known = stored(own)
    assert regrouped(CLUSTER, known, (), catalog(), NOW).there == tuple(known)
    # The same nodes are not offered a second time.
    again = regrouped(CLUSTER, known, (GPU,), catalog(), NOW)
    assert (again.new, again.changed, again.there) == ((), (), tuple(known))
    assert (own.price_per_hour, own.price_source, own.price_as_of) == (
        2.0,
        "given by its owner",
        "2026-03-01",
    )


FINE = NewNodeGroup("l4", {"pool": "l4"})
SHAPE = NodeShape(4.0, 2**34, "NVIDIA-L4", 1, 2**34)


@pytest.mark.parametrize(
    "new",
    [
        FINE,
        replace(FINE, selector={"cloud.example/node-pool": "a_b.c-d", "spot": ""}),
        replace(FINE, selector={"x" * 63: "y" * 63}),
        replace(FINE, price_per_hour=0.0, max_nodes=4, shape=SHAPE),
        replace(FINE, shape=NodeShape(0.5, 1)),
    ],
)
def test_what_may_be_declared(new: NewNodeGroup) -> None:
    assert broken_rules(new) == ()


@pytest.mark.parametrize(
    ("new", "field", "rule"),
    [
        (replace(FINE, name=""), "body.name", "name"),
        (replace(FINE, name="a\nb"), "body.name", "name"),
        (replace(FINE, selector={}), "body.selector", "length"),
        (replace(FINE, selector={f"k{n}": "v" for n in range(17)}), "body.selector", "length"),
        (replace(FINE, selector={"": "v"}), "body.selector.", "label_key"),
        (replace(FINE, selector={"a b": "v"}), "body.selector.a b", "label_key"),
        (replace(FINE, selector={"/x": "v"}), "body.selector./x", "label_key"),
        (replace(FINE, selector={"A.example/x": "v"}), "body.selector.A.example/x", "label_key"),
        (replace(FINE, selector={"x" * 64: "v"}), f"body.selector.{'x' * 64}", "label_key"),
        (replace(FINE, selector={"-x": "v"}), "body.selector.-x", "label_key"),
        (replace(FINE, selector={"x": "v" * 64}), "body.selector.x", "label_value"),
        (replace(FINE, selector={"x": "in (a, b)"}), "body.selector.x", "label_value"),
        (replace(FINE, price_per_hour=-0.1), "body.price_per_hour", "range"),
        (replace(FINE, price_per_hour=float("nan")), "body.price_per_hour", "range"),
        (replace(FINE, max_nodes=0, shape=SHAPE), "body.max_nodes", "range"),
        (replace(FINE, max_nodes=2), "body.shape", "needed_by_max_nodes"),
        (replace(FINE, shape=replace(SHAPE, cpus=0.0)), "body.shape.cpus", "range"),
        (replace(FINE, shape=replace(SHAPE, memory_bytes=0)), "body.shape.memory_gib", "range"),
        (replace(FINE, shape=replace(SHAPE, gpus=-1)), "body.shape.gpus", "range"),
        (replace(FINE, shape=replace(SHAPE, gpu=None)), "body.shape.gpu", "required"),
        (replace(FINE, shape=replace(SHAPE, gpus=0)), "body.shape.gpus", "required"),
        (replace(FINE, shape=replace(SHAPE, gpu="\0")), "body.shape.gpu", "name"),
        (replace(FINE, shape=replace(SHAPE, gpu_memory_bytes=0)), "body.shape.gpu_memory_gib", "range"),
    ],
)
def test_each_rule_broken_once(new: NewNodeGroup, field: str, rule: str) -> None:
    assert (field, rule) in {(e.field, e.rule) for e in broken_rules(new)}


@given(st.dictionaries(st.text(max_size=80), st.text(max_size=80), max_size=20))
def test_no_selector_is_too_strange_to_be_judged(selector: dict[str, str]) -> None:
    broken_rules(replace(FINE, selector=selector))
