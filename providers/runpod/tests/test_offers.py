"""What is for sale: pools of the live catalog by their least type, or the registry when that is silent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import date

import pytest

from moorage.domain.compute import (
    GIB,
    Availability,
    Estimate,
    Offer,
    PlacementPolicy,
    Requirements,
    RuntimeOption,
    Serverless,
)
from moorage.domain.placement import matches_gpu, place
from moorage.errors import ProviderError, Retry, Unauthorized
from moorage_registries import load
from moorage_runpod.api import AccountApi
from moorage_runpod.market import Market
from moorage_runpod.offers import Catalog, make_offers
from moorage_runpod.pools import PoolChoice
from moorage_runpod.transport import Transport
from moorage_runpod.wire import GpuType

from .plans import settings

TODAY = "2026-11-21"


def gpu(id_: str, pool: str | None, memory: int, price: float | None = 0.5, **more: object) -> GpuType:
    told: dict[str, object] = {
        "id": id_,
        "name": id_.removeprefix("NVIDIA "),
        "pool": pool,
        "manufacturer": "NVIDIA",
        "memory": memory,
        "price": {"secure": 1.0, "community": 0.0} | ({} if price is None else {"serverless": price}),
        "maxCount": {"secure": 8, "community": 0},
        "availability": "HIGH",
        **more,
    }
    return GpuType.model_validate(told)


def option(runtime: str = "diffusers", *, shards: bool = False) -> RuntimeOption:
    return RuntimeOption(
        runtime, True, Estimate(10 * GIB, 16, ()), shards=shards, heads=32 if shards else None
    )


def need(*options: RuntimeOption, data_centers: tuple[str, ...] = (), kind: str = "hub") -> Requirements:
    return Requirements(options or (option(),), 1, kind, serverless=Serverless(data_centers=data_centers))


def live(*gpus: GpuType, wanted: Requirements | None = None, **environ: str) -> dict[str, Offer]:
    offers = make_offers(wanted or need(), Catalog(gpus, TODAY), settings(**environ))
    assert len({o.id for o in offers}) == len(offers)
    return {o.id: o for o in offers}


def test_a_pool_promises_what_the_least_of_its_types_has() -> None:
    sold = live(
        gpu("NVIDIA L4", "AMPERE_24", 24, 0.69, availability="LOW"),
        gpu("NVIDIA RTX A5000", "AMPERE_24", 24, 0.69, availability="HIGH"),
        gpu("NVIDIA MIG 20GB", "AMPERE_24", 20, 0.69, availability="NONE"),
        gpu("NVIDIA T4", None, 16, None),
    )
    assert set(sold) == {"AMPERE_24"}
    offer = sold["AMPERE_24"]
    assert offer.memory_bytes == 20 * GIB
    assert offer.usable_bytes == load().tiers.usable_bytes(20) < offer.memory_bytes
    assert offer.compute_capability == 8.6
    assert offer.price_per_hour == 0.69
    assert (offer.price_as_of, offer.by_running) == (TODAY, True)
    assert "live" in offer.price_source
    assert offer.availability is Availability.HIGH
    assert offer.gpu == "L4 / MIG 20GB / RTX A5000"
    assert offer.note == "one of 3 GPU types, as RunPod chooses"


@pytest.mark.parametrize("tier", ["AMPERE_24", "ampere_24", "L4", "RTX A5000", "a5000"])
def test_a_pool_is_found_by_its_name_and_by_its_types(tier: str) -> None:
    sold = live(gpu("NVIDIA L4", "AMPERE_24", 24), gpu("NVIDIA RTX A5000", "AMPERE_24", 24))
    assert matches_gpu(tier, sold["AMPERE_24"])
    assert not matches_gpu("ADA_24", sold["AMPERE_24"])


def test_an_unknown_pool_is_sold_as_it_is_described() -> None:
    offer = live(gpu("NVIDIA X900", "RUBIN_400", 400, 20.0))["RUBIN_400"]
    assert (offer.gpu, offer.compute_capability, offer.price_per_hour) == ("X900", None, 20.0)


def test_a_pool_without_a_live_price_has_the_registrys_or_is_left_out() -> None:
    sold = live(
        gpu("NVIDIA L4", "AMPERE_24", 24, None), gpu("NVIDIA GeForce RTX 5090", "ADA_32_PRO", 32, None)
    )
    assert set(sold) == {"AMPERE_24"}
    assert sold["AMPERE_24"].price_as_of < TODAY
    assert "docs" in sold["AMPERE_24"].price_source


def test_cards_that_our_images_do_not_run_on_are_left_out() -> None:
    assert live(gpu("AMD Instinct MI300X", "AMD_192", 192, manufacturer="AMD")) == {}


def test_stock_is_that_of_the_wished_data_centers() -> None:
    def centers(**levels: str) -> list[dict[str, str]]:
        return [{"id": k.replace("_", "-"), "name": k, "availability": v} for k, v in levels.items()]

    sold = live(
        gpu("NVIDIA L4", "AMPERE_24", 24, dataCenters=centers(EU_RO_1="LOW", US_KS_2="HIGH")),
        gpu("NVIDIA H200", "HOPPER_141", 141, dataCenters=centers(US_KS_2="HIGH")),
        wanted=need(data_centers=("eu-ro-1",)),
    )
    assert sold["AMPERE_24"].availability is Availability.LOW
    assert sold["HOPPER_141"].availability is Availability.NONE


def test_a_level_that_nobody_knows() -> None:
    assert live(gpu("NVIDIA L4", "P", 24, availability="SOME"))["P"].availability is Availability.UNKNOWN


def test_several_gpus_only_where_a_runtime_shares_a_model() -> None:
    types = (
        gpu("NVIDIA L4", "AMPERE_24", 24, 0.69),
        gpu("NVIDIA B200", "BLACKWELL_180", 180, 8.64, maxCount={"secure": 2, "community": 0}),
    )
    assert set(live(*types)) == {"AMPERE_24", "BLACKWELL_180"}
    sold = live(*types, wanted=need(option("vllm", shards=True)), IMAGE_VLLM="acme/vllm:1")
    assert set(sold) == {
        "AMPERE_24", "AMPERE_24:2", "AMPERE_24:4", "AMPERE_24:8", "BLACKWELL_180", "BLACKWELL_180:2",
    }  # fmt: skip
    two = sold["AMPERE_24:2"]
    assert (two.count, two.price_per_hour) == (2, 1.38)
    assert two.usable_bytes == 2 * sold["AMPERE_24"].usable_bytes
    assert PoolChoice.of(two.id) == PoolChoice("AMPERE_24", 2)


def test_runtimes_are_those_with_an_image() -> None:
    offer = live(gpu("NVIDIA L4", "AMPERE_24", 24))["AMPERE_24"]
    assert offer.engines == ("diffusers", "sentence-transformers", "transformers")
    assert dict(offer.engines_missing)["vllm"] == "no worker image is set: MOORAGE_RUNPOD_IMAGE_VLLM"
    assert "vllm" in (live(gpu("NVIDIA L4", "P", 24), IMAGE_VLLM="acme/vllm:1")["P"].engines or ())
    image = live(gpu("NVIDIA L4", "P", 24), wanted=need(kind="image"))["P"]
    assert image.engines is None


def test_a_missing_image_is_what_stands_in_the_way() -> None:
    offers = make_offers(need(option("vllm")), Catalog((gpu("NVIDIA L4", "P", 24),), TODAY), settings())
    placed = place([option("vllm")], offers, PlacementPolicy())
    assert placed.ladder == ()
    assert "MOORAGE_RUNPOD_IMAGE_VLLM" in (placed.refused[0].smallest_change or "")


def test_a_silent_catalog_leaves_the_registry() -> None:
    offers = make_offers(need(), Catalog(None, TODAY, "RunPod could not be reached"), settings())
    assert {"AMPERE_16", "ADA_80_PRO", "BLACKWELL_180"} <= {o.id for o in offers}
    assert "ADA_32_PRO" not in {o.id for o in offers}  # nobody knows what it costs
    for offer in offers:
        assert offer.availability is Availability.UNKNOWN
        assert date.fromisoformat(offer.price_as_of) < date.fromisoformat(TODAY)
        assert "could not be asked: RunPod could not be reached" in (offer.note or "")
        assert offer.price_per_hour > 0


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class CountingApi(AccountApi):
    """An account whose catalog answers as told; `asked` counts how often."""

    asked: list[str]
    errors: list[ProviderError]

    async def gpu_types(self) -> tuple[GpuType, ...]:
        self.asked.append(self.key)
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return (gpu("NVIDIA L4", "AMPERE_24", 24),)


class TestMarket:
    @pytest.fixture
    async def api(self) -> CountingApi:
        return CountingApi(Transport(), "http://127.0.0.1:9", "k1", [], [])

    async def test_everybody_at_once_is_one_call(self, api: CountingApi) -> None:
        market = Market()
        await asyncio.gather(*(market.catalog(api) for _ in range(5)))
        assert api.asked == ["k1"]
        await market.catalog(replace(api, key="k2"))
        assert api.asked == ["k1", "k2"]

    async def test_it_is_kept_for_a_while(self, api: CountingApi) -> None:
        clock = Clock()
        market = Market(clock)
        for now in (0.0, 29.0, 31.0):
            clock.now = now
            await market.catalog(api)
        assert len(api.asked) == 2

    async def test_silence_is_kept_for_less(self, api: CountingApi) -> None:
        clock = Clock()
        market = Market(clock)
        api.errors.append(Retry("no answer"))
        assert (await market.catalog(api)).silent == "no answer"
        clock.now = 4.0
        assert (await market.catalog(api)).gpus is None
        clock.now = 6.0
        assert (await market.catalog(api)).gpus is not None

    async def test_a_refused_key_is_told_and_not_kept(self, api: CountingApi) -> None:
        market = Market()
        api.errors.append(Unauthorized("no"))
        with pytest.raises(Unauthorized):
            await market.catalog(api)
        assert (await market.catalog(api)).gpus is not None

    async def test_one_who_gives_up_takes_nothing_from_the_others(self, api: CountingApi) -> None:
        market = Market()
        first = asyncio.create_task(market.catalog(api))
        second = asyncio.create_task(market.catalog(api))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).gpus is not None
        assert api.asked == ["k1"]
