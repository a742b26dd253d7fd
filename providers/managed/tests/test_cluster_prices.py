"""What the operator's nodes cost, and which groups that makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from moorage.domain.cluster import NodeGroup
from moorage_kubernetes.nodes import Amounts, NodeState
from moorage_managed.clusters.groups import operator_groups
from moorage_managed.clusters.prices import LABEL

NOW = datetime(2026, 11, 21, tzinfo=UTC)
HAS = Amounts(cpu=8, memory=32 * 2**30, pods=110)
POOL = "cloud.google.com/gke-nodepool"
TYPE = "node.kubernetes.io/instance-type"
REGION = "topology.kubernetes.io/region"
SPOT = {"cloud.google.com/gke-spot": "true"}


def groups(*nodes: Mapping[str, str], cluster: str = "east") -> dict[str, NodeGroup]:
    """Of nodes with these labels, by name."""
    states = [
        NodeState(f"node-{i}", labels, (), unschedulable=False, ready=True, allocatable=HAS, free=HAS)
        for i, labels in enumerate(nodes)
    ]
    found = operator_groups(cluster, states, NOW)
    assert len({group.id for group in found}) == len(found)
    return {group.name: group for group in found}


def test_a_cloud_s_label_makes_a_group_and_the_operator_s_a_price() -> None:
    found = groups({POOL: "a", LABEL: "0.5"}, {POOL: "a", LABEL: "0.5"}, {POOL: "b", LABEL: "2"})
    assert {name: g.price_per_hour for name, g in found.items()} == {"a": 0.5, "b": 2.0}
    assert found["a"].selector == {POOL: "a"}
    assert LABEL in (found["a"].price_source or "")


def test_nodes_of_a_group_that_differ_in_price_are_offered_apart() -> None:
    found = groups({POOL: "a", LABEL: "0.5"}, {POOL: "a", LABEL: "2"})
    assert {name: g.price_per_hour for name, g in found.items()} == {"a at 0.5": 0.5, "a at 2": 2.0}
    assert found["a at 2"].selector == {POOL: "a", LABEL: "2"}


def test_where_some_nodes_do_not_say_their_price_the_dearest_stands() -> None:
    found = groups({POOL: "a", LABEL: "0.5"}, {POOL: "a", LABEL: "2"}, {POOL: "a"})
    assert {name: g.price_per_hour for name, g in found.items()} == {"a": 2.0}


@pytest.mark.parametrize("price", ["cheap", "-1", "nan", "inf", "1_000x"])
def test_a_label_that_is_no_price_says_nothing(price: str) -> None:
    assert groups({POOL: "a", LABEL: price})["a"].price_per_hour is None


def test_the_registry_knows_what_a_cloud_asks_for_the_machine() -> None:
    found = groups({POOL: "a", TYPE: "p5.48xlarge", REGION: "us-east-1"})["a"]
    assert found.price_per_hour == pytest.approx(55.04)
    assert "aws p5.48xlarge" in (found.price_source or "")
    assert found.price_as_of == "2026-11-09"
    elsewhere = groups({POOL: "a", TYPE: "p5.48xlarge", REGION: "eu-nowhere-9"} | SPOT)["a"]
    assert "none is listed for eu-nowhere-9" in (elsewhere.price_source or "")
    assert elsewhere.spot


def test_the_operator_s_word_counts_before_the_registry_s() -> None:
    assert groups({POOL: "a", TYPE: "p5.48xlarge", LABEL: "9"})["a"].price_per_hour == 9.0


def test_without_a_cloud_s_label_the_kind_of_machine_makes_a_group() -> None:
    found = groups({TYPE: "p5.48xlarge"}, {TYPE: "k3s"})
    assert {name: g.selector for name, g in found.items()} == {
        "p5.48xlarge": {TYPE: "p5.48xlarge"},
        "k3s": {TYPE: "k3s"},
    }
    assert found["p5.48xlarge"].price_per_hour == pytest.approx(55.04)
    assert found["k3s"].price_per_hour is None


def test_nodes_that_nothing_tells_apart_are_one_group() -> None:
    found = groups({}, {})
    assert found["nodes"].selector == {}
    assert found["nodes"].price_per_hour is None


def test_nodes_with_a_price_alone_are_groups_by_it() -> None:
    found = groups({LABEL: "1"}, {LABEL: "3"}, {LABEL: "3"})
    assert {name: g.selector for name, g in found.items()} == {"1": {LABEL: "1"}, "3": {LABEL: "3"}}


def test_a_node_without_labels_beside_others_is_left_alone() -> None:
    """No selector finds it without the others."""
    assert groups({POOL: "a"}, {}).keys() == {"a"}


def test_the_same_group_of_two_clusters_has_two_ids() -> None:
    assert groups({POOL: "a"})["a"].id != groups({POOL: "a"}, cluster="west")["a"].id


def test_a_cluster_without_nodes_has_no_groups() -> None:
    assert groups() == {}
