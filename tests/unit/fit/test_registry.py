"""The shipped data is whole, says where it comes from; arithmetic that does not hold is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from moorage.adapters.registry import catalog
from moorage_registries import load
from moorage_registries.schema import Registry

SEED_FAMILIES = {
    "black-forest-labs/FLUX.1-dev",
    "black-forest-labs/FLUX.1-schnell",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "stabilityai/sdxl-turbo",
    "stabilityai/sd-turbo",
    "CompVis/stable-diffusion-v1-4",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-3-medium-diffusers",
    "stabilityai/stable-diffusion-3.5-medium",
    "stabilityai/stable-diffusion-3.5-large",
    "stabilityai/stable-diffusion-3.5-large-turbo",
    "PixArt-alpha/PixArt-XL-2-1024-MS",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    "kandinsky-community/kandinsky-2-2-decoder",
    "kandinsky-community/kandinsky-3",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "zai-org/CogVideoX-2b",
    "zai-org/CogVideoX-5b",
}


def test_the_models_of_the_seed_are_listed_each_with_its_arithmetic() -> None:
    models = {model.repo_id: model for model in load().models}
    assert set(models) >= SEED_FAMILIES
    for model in models.values():
        assert f"{model.weight_bytes / 1e9:.1f} GB" in model.why, "`why` tells the sum of the components"


def test_the_tiers_are_those_of_the_seed_and_larger_ones_that_exist() -> None:
    assert load().tiers.sizes_gb == (6, 8, 10, 12, 16, 24, 28, 40, 48, 80, 96, 141, 180)


def test_what_a_card_offers_is_below_its_nominal_size() -> None:
    registry = load()
    l4 = registry.gpu("nvidia l4")
    assert l4 is not None
    assert registry.usable_bytes(l4) < 23_034 * 1024**2, "what such a card reports"
    assert registry.usable_bytes(l4) > 0.9 * 24 * 1024**3


def test_each_runpod_pool_has_gpus_memory_and_a_dated_price() -> None:
    pools = {price.product: price for price in load().prices if price.provider == "runpod"}
    assert pools["AMPERE_24"].price_per_hour == 0.684
    assert pools["HOPPER_141"].memory_gb == 141
    assert pools["ADA_32_PRO"].price_per_hour is None, "none was published"
    for price in load().prices:
        assert price.source
        assert price.as_of.year == 2026
        gpus = [registered for name in price.gpus if (registered := load().gpu(name))]
        assert min(gpu.memory_gb for gpu in gpus) == price.memory_gb


def test_a_spec_whose_tier_does_not_follow_from_its_components_is_refused() -> None:
    data = load().model_dump()
    data["models"][0]["min_vram_gb"] = 8
    with pytest.raises(ValidationError, match="its components and headroom need"):
        Registry.model_validate(data)


def test_a_price_for_an_unknown_gpu_and_a_model_listed_twice_are_refused() -> None:
    data = load().model_dump()
    data["prices"][0]["gpus"] = ("Voodoo 2",)
    with pytest.raises(ValidationError, match="Voodoo 2"):
        Registry.model_validate(data)
    data = load().model_dump()
    data["models"] = (*data["models"], data["models"][0])
    with pytest.raises(ValidationError, match="listed twice"):
        Registry.model_validate(data)


def test_the_catalog_prefers_onnx_and_knows_what_each_dtype_needs() -> None:
    runtimes = {runtime.name: runtime for runtime in catalog().runtimes}
    assert next(iter(runtimes)) == "onnx"
    vllm = runtimes["vllm"]
    assert vllm.compute_capability_for("F8_E4M3") == 8.9
    assert vllm.compute_capability_for("BF16") == 8.0
    assert vllm.compute_capability_for("FP4") == 10.0
    assert vllm.compute_capability_for("F16") == 7.0, "the runtime's own need, whatever the dtype"
    assert runtimes["sentence-transformers"].compute_capability_for("F32") is None


def test_a_need_beyond_all_tiers_still_has_a_size() -> None:
    assert catalog().tier(23_000_000_000) == 24
    assert catalog().tier(24_000_000_000) == 28, "24 GB nominal does not hold 24 GB"
    beyond = catalog().tier(400 * 10**9)
    assert catalog().usable_bytes(beyond) >= 400 * 10**9
