"""Each rule of the ladder by itself, and that every refusal says what would help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage.domain.compute import (
    GIB,
    Availability,
    Concession,
    Estimate,
    Offer,
    PlacementPolicy,
    RefusedOffer,
    RuntimeOption,
)
from moorage.domain.model import SizedItem
from moorage.domain.placement import matches_gpu, place, smallest_change

ANY = PlacementPolicy()


def offer(id_: str = "L4", **facts: object) -> Offer:
    base = Offer(
        id=id_,
        provider="runpod",
        gpu="NVIDIA L4",
        count=1,
        memory_bytes=24 * GIB,
        usable_bytes=22 * GIB,
        price_per_hour=0.684,
        price_source="a test",
        price_as_of="2026-01-01",
        compute_capability=8.9,
    )
    return replace(base, **facts)  # type: ignore[arg-type]  # the keywords are the dataclass' own


def cpu(id_: str = "cpu", **facts: object) -> Offer:
    here = {"provider": "managed", "gpu": None, "count": 0, "price_per_hour": 0.0, "compute_capability": None}
    return offer(id_, **{**here, **facts})


def option(gib: float = 10, **facts: object) -> RuntimeOption:
    total = int(gib * GIB)
    base = RuntimeOption(
        runtime="diffusers",
        accelerator=True,
        estimate=Estimate(total, 48, (SizedItem("weights", total, "a test"),)),
    )
    return replace(base, **facts)  # type: ignore[arg-type]  # the keywords are the dataclass' own


def ladder(
    options: list[RuntimeOption],
    offers: list[Offer],
    policy: PlacementPolicy = ANY,
    refused_lately: tuple[tuple[str, str], ...] = (),
) -> list[str]:
    return [rung.offer.id for rung in place(options, offers, policy, refused_lately).ladder]


def refusal(options: list[RuntimeOption], candidate: Offer, policy: PlacementPolicy = ANY) -> RefusedOffer:
    placement = place(options, [candidate], policy)
    assert placement.ladder == ()
    (refused,) = placement.refused
    return refused


# -- order ------------------------------------------------------------------------------------------------


def test_the_cheapest_first_then_the_likelier_then_the_quicker_then_by_name() -> None:
    offers = [
        offer("dear", price_per_hour=2.0, availability=Availability.HIGH),
        offer("slow", availability=Availability.HIGH, load_seconds=90),
        offer("untold", availability=Availability.HIGH),
        offer("quick", availability=Availability.HIGH, load_seconds=10),
        offer("scarce", availability=Availability.LOW),
        offer("b", availability=Availability.MEDIUM),
        offer("a", availability=Availability.MEDIUM),
        offer("cheap", price_per_hour=0.2, availability=Availability.LOW),
    ]
    assert ladder([option()], offers) == ["cheap", "quick", "slow", "untold", "a", "b", "scarce", "dear"]


def test_what_has_no_room_or_had_none_lately_is_tried_last_not_dropped() -> None:
    offers = [
        offer("full", price_per_hour=0.1, availability=Availability.NONE),
        offer("refused", price_per_hour=0.2),
        offer("dear", price_per_hour=9.0),
    ]
    assert ladder([option()], offers, refused_lately=(("runpod", "refused"), ("other", "dear"))) == [
        "dear",
        "full",
        "refused",
    ]


def test_an_offer_runs_the_preferred_of_the_options_that_fit_on_it() -> None:
    options = [option(30, runtime="vllm"), option(10, runtime="transformers")]
    placement = place(options, [offer("small"), offer("large", usable_bytes=40 * GIB)], ANY)
    assert {rung.offer.id: rung.runtime for rung in placement.ladder} == {
        "small": "transformers",
        "large": "vllm",
    }


def test_own_machine_and_rented_gpu_stand_in_one_ladder() -> None:
    options = [option(1, runtime="onnx", accelerator=False), option(2, runtime="sentence-transformers")]
    assert ladder(options, [offer(), cpu()]) == ["cpu", "L4"]


# -- fit --------------------------------------------------------------------------------------------------


def test_usable_memory_decides_to_the_byte() -> None:
    need = option(22)
    assert ladder([need], [offer()]) == ["L4"]
    refused = refusal([need], offer(usable_bytes=22 * GIB - 1))
    assert "needs 22.0 GiB" in refused.reason
    assert (refused.smallest_change or "").startswith("a GPU with ≥ 48 GB")


def test_several_gpus_count_together_only_when_the_runtime_shares_and_heads_divide() -> None:
    pair = offer("pair", count=2, usable_bytes=44 * GIB)
    sharing = option(40, runtime="vllm", shards=True, heads=32, per_shard_bytes=GIB)
    assert ladder([sharing], [pair]) == ["pair"]
    assert "each" not in refusal([option(40)], pair).reason
    assert "cannot be shared" in refusal([option(40)], pair).reason
    assert "cannot be shared" in refusal([replace(sharing, heads=None)], pair).reason
    odd = refusal([replace(sharing, heads=25)], pair)
    assert odd.reason == "25 attention heads cannot be shared evenly by 2 GPUs"
    assert refusal([replace(sharing, per_shard_bytes=5 * GIB)], pair).reason.endswith("39.0 GiB usable")


def test_a_model_that_cannot_be_shared_may_use_one_of_several_gpus() -> None:
    assert ladder([option(20)], [offer("pair", count=2, usable_bytes=44 * GIB)]) == ["pair"]


def test_an_older_gpu_or_driver_is_refused_and_an_untold_one_is_not() -> None:
    need = option(min_compute_capability=8.9, min_cuda=12.4)
    assert ladder([need], [offer(cuda=12.4), offer("untold", compute_capability=None)]) == ["L4", "untold"]
    assert "compute capability ≥ 8.9, this has 8.6" in refusal([need], offer(compute_capability=8.6)).reason
    assert "CUDA ≥ 12.4" in (refusal([need], offer(cuda=12.1)).smallest_change or "")


def test_a_runtime_that_is_not_installed_is_refused_with_what_to_install() -> None:
    here = cpu(
        engines=("onnx",),
        engines_missing=(("sentence-transformers", "not installed: torch; run: pip install 'x[torch]'"),),
    )
    need = option(1, runtime="sentence-transformers", accelerator=False)
    assert "pip install 'x[torch]'" in (refusal([need], here).smallest_change or "")
    never = refusal([replace(need, runtime="transformers")], here)
    assert (never.reason, never.smallest_change) == ("managed does not run transformers here", None)


def test_cpu_and_gpu_are_not_exchanged() -> None:
    assert "needs a GPU" in refusal([option()], cpu()).reason
    idle = refusal([option(1, runtime="onnx", accelerator=False)], offer())
    assert "leave the GPU idle" in idle.reason
    assert idle.smallest_change is None


def test_asking_for_less_is_suggested_where_it_is_enough() -> None:
    need = option(
        40,
        concessions=(
            Concession("ask for context_length ≤ 16384", 30 * GIB),
            Concession("ask for context_length ≤ 8192", 21 * GIB),
            Concession("ask for context_length ≤ 4096", 15 * GIB),
        ),
    )
    assert refusal([need], offer()).smallest_change == "ask for context_length ≤ 8192"
    too_small = refusal([need], offer(usable_bytes=10 * GIB))
    assert (too_small.smallest_change or "").startswith("a GPU with")


def test_without_any_runtime_everything_is_refused() -> None:
    assert "no runtime" in refusal([], offer()).reason


# -- policy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        (PlacementPolicy(provider="kubernetes"), "ask for provider runpod or auto"),
        (PlacementPolicy(region="US"), "drop region"),
        (PlacementPolicy(gpu_tier="A100"), "drop gpu_tier"),
        (PlacementPolicy(spot=True), "drop spot"),
        (PlacementPolicy(max_price_per_hour=0.5), "raise max_price_per_hour to 0.69"),
        (PlacementPolicy(region="US", spot=True), "drop region and drop spot"),
    ],
)
def test_each_wish_is_kept_and_says_how_to_loosen_it(policy: PlacementPolicy, change: str) -> None:
    here = offer(region="EU-RO-1")
    assert ladder([option()], [here]) == ["L4"]
    assert refusal([option()], here, policy).smallest_change == change


def test_wishes_that_are_met_refuse_nothing() -> None:
    wishes = PlacementPolicy("runpod", gpu_tier="l4", region="eu", spot=True, max_price_per_hour=0.684)
    assert ladder([option()], [offer(region="EU-RO-1", spot=True)], wishes) == ["L4"]
    assert ladder([option()], [offer(region="EUR-IS-1", spot=True)], wishes) == [], "another region"


@pytest.mark.parametrize(
    ("wanted", "gpu", "matches"),
    [
        ("A10", "NVIDIA A10", True),
        ("a10", "NVIDIA A100 80GB PCIe", False),
        ("A10", "NVIDIA A10G", False),
        ("L40", "NVIDIA L40S", False),
        ("nvidia l40s", "L40S", True),
        ("rtx4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("A100-80", "NVIDIA A100 80GB PCIe", True),
        ("A100 40GB", "NVIDIA A100 80GB PCIe", False),
        ("", "NVIDIA A10", False),
        ("nvidia", "NVIDIA A10", False),
    ],
)
def test_gpu_names_are_compared_loosely_by_their_words(wanted: str, gpu: str, matches: bool) -> None:
    assert matches_gpu(wanted, offer("some-id", gpu=gpu)) is matches


def test_a_pools_id_counts_like_a_gpu_name() -> None:
    assert matches_gpu("ampere_24", offer("AMPERE_24:1"))
    assert not matches_gpu("ampere_24", offer("AMPERE_48:1"))
    assert not matches_gpu("a10", cpu("this-machine"))


# -- the smallest change --------------------------------------------------------------------------------


def test_the_smallest_change_is_that_of_the_offer_nearest_to_fitting() -> None:
    far, near = offer("far", price_per_hour=4.0), offer("near", price_per_hour=1.91)
    small = offer("small", price_per_hour=0.3, usable_bytes=5 * GIB)
    placement = place([option()], [far, small, near], PlacementPolicy(max_price_per_hour=1.5))
    assert [r.price_per_hour for r in placement.refused] == [1.91, 4.0, 0.3]
    assert smallest_change(placement) == "raise max_price_per_hour to 1.91"


def test_loosening_a_wish_is_less_than_asking_less_of_the_model_or_installing() -> None:
    lighter = (Concession("ask for concurrency ≤ 2", 5 * GIB),)
    need = option(10, concessions=lighter)
    offers = [offer("tight", usable_bytes=6 * GIB), offer("elsewhere", region="US")]
    eu = [replace(offers[0], region="EU"), offers[1]]
    assert smallest_change(place([need], offers, PlacementPolicy())) == "ask for concurrency ≤ 2"
    assert smallest_change(place([need], eu, PlacementPolicy(region="EU"))) == "drop region"


def test_there_is_no_smallest_change_when_nothing_in_a_request_helps() -> None:
    placement = place([option(1, runtime="onnx", accelerator=False)], [offer()], ANY)
    assert smallest_change(placement) is None
