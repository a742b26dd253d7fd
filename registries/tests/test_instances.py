"""Prices of whole machines: dated, in step with those of their accelerators, and found by a node's label."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from moorage.adapters.registry import catalog
from moorage_registries import load
from moorage_registries.schema import Instance, Registry


def test_machines_agree_with_the_prices_of_their_accelerators() -> None:
    """The same fact is told twice, for one accelerator and for the machine: it must be one fact."""
    priced = {(p.provider, p.product.lower()): p for p in load().prices}
    assert load().instances
    for instance in load().instances:
        price = priced[instance.cloud, instance.type.lower().removeprefix("standard_")]
        assert price.price_per_hour is not None
        machines = instance.gpus / price.gpu_count
        assert instance.price_per_hour == pytest.approx(price.price_per_hour * machines)
        assert (instance.gpu, instance.region) == (price.gpus[0], price.region)
        assert (instance.as_of, instance.source) == (price.as_of, price.source)
        if price.spot_price_per_hour is not None:
            assert instance.spot_price_per_hour == pytest.approx(price.spot_price_per_hour * machines)


def test_a_machine_listed_twice_or_with_an_unknown_gpu_is_refused() -> None:
    data = load().model_dump()
    twice = {**data, "instances": (*data["instances"], data["instances"][0])}
    with pytest.raises(ValidationError, match="listed twice"):
        Registry.model_validate(twice)
    data["instances"][0]["gpu"] = "Voodoo 2"
    with pytest.raises(ValidationError, match="unknown GPU: Voodoo 2"):
        Registry.model_validate(data)


@pytest.mark.parametrize("change", [{"gpu": None}, {"gpus": 0}, {"price_per_hour": 0}, {"type": "p4d 24"}])
def test_half_a_machine_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Instance.model_validate(load().instances[0].model_dump() | change)


def test_a_node_is_priced_by_its_label() -> None:
    found = catalog().instance_price("standard_nc24ads_a100_v4", "eastus")
    assert found is not None
    assert (found.price_per_hour, found.as_of) == (3.673, "2026-11-09")
    assert found.source == "datareceipts/data-receipts, hyperscalers.json (azure Standard_NC24ads_A100_v4)"
    assert catalog().instance_price("m0.none") is None


def test_a_price_of_elsewhere_or_of_another_kind_says_so() -> None:
    elsewhere = catalog().instance_price("p5.48xlarge", "eu-west-1")
    assert elsewhere is not None
    assert elsewhere.price_per_hour == 55.04
    assert elsewhere.source.endswith("; of us-east-1, none is listed for eu-west-1")
    spot = catalog().instance_price("a3-highgpu-1g", "us-central1", spot=True)
    assert spot is not None
    assert spot.price_per_hour == 6.571
    no_spot = catalog().instance_price("p5.48xlarge", "us-east-1", spot=True)
    assert no_spot is not None
    assert (no_spot.price_per_hour, no_spot.source.rpartition("; ")[2]) == (
        55.04,
        "on demand, none is listed for spot",
    )
