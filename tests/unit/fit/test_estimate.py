"""The estimate is a sum that can be checked by hand; each family gets the runtimes that serve it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage.adapters.registry import catalog
from moorage.domain.compute import GIB, Estimate, RuntimeOption
from moorage.domain.estimate import Load, kv_cache_bytes, runtime_options
from moorage.domain.model import Attention, ModelProfile, SizedItem, WeightFormat, WeightSet
from moorage.errors import Invalid, ModelUnreadable

LLAMA_8B = Attention(layers=32, heads=32, kv_heads=8, head_dim=128, max_positions=131_072)


def weights(
    gb: float,
    format_: WeightFormat = WeightFormat.SAFETENSORS,
    dtype: str | None = "BF16",
    *,
    diffusers: bool = False,
) -> WeightSet:
    return WeightSet(format_, (SizedItem("weights", int(gb * 1e9), "a test"),), dtype, diffusers)


def profile(*sets: WeightSet, **facts: object) -> ModelProfile:
    base = ModelProfile(repo_id="acme/model", revision="0" * 40, weights=sets)
    return replace(base, **facts)  # type: ignore[arg-type]  # the keywords are the dataclass' own


def llm(*sets: WeightSet, attention: Attention | None = LLAMA_8B) -> ModelProfile:
    return profile(
        *(sets or (weights(16),)),
        task="text-generation",
        library="transformers",
        architectures=("LlamaForCausalLM",),
        attention=attention,
    )


def items(estimate: Estimate) -> dict[str, int]:
    assert estimate.total_bytes == sum(item.bytes for item in estimate.items)
    assert all(item.how for item in estimate.items), "every line says where it comes from"
    return {item.name: item.bytes for item in estimate.items}


def option(options: tuple[RuntimeOption, ...], runtime: str, *, gpu: bool) -> RuntimeOption:
    return next(o for o in options if o.runtime == runtime and o.accelerator is gpu)


def names(options: tuple[RuntimeOption, ...]) -> list[tuple[str, str]]:
    return [(o.runtime, "gpu" if o.accelerator else "cpu") for o in options]


# -- which runtime --------------------------------------------------------------------------------------


def test_an_onnx_export_is_preferred_and_runs_on_the_cpu() -> None:
    minilm = profile(
        weights(0.09, dtype="F32"),
        weights(0.09, WeightFormat.ONNX, None),
        task="sentence-similarity",
        library="sentence-transformers",
        architectures=("BertModel",),
    )
    assert names(runtime_options(minilm, catalog())) == [
        ("onnx", "cpu"),
        ("sentence-transformers", "cpu"),
        ("sentence-transformers", "gpu"),
    ]


def test_a_language_model_is_served_by_vllm_first_and_never_by_the_onnx_engine() -> None:
    both = llm(weights(16), weights(8, WeightFormat.ONNX, None))
    assert names(runtime_options(both, catalog())) == [
        ("vllm", "gpu"),
        ("transformers", "cpu"),
        ("transformers", "gpu"),
    ]


def test_a_pipeline_is_served_by_diffusers_alone() -> None:
    pipeline = profile(weights(5, diffusers=True), task="text-to-image", library="diffusers")
    assert names(runtime_options(pipeline, catalog())) == [("diffusers", "gpu")]


def test_an_encoder_without_a_library_counts_as_transformers_by_its_architecture() -> None:
    bert = profile(weights(0.4), task="text-classification", architectures=("BertForSequenceClassification",))
    assert names(runtime_options(bert, catalog())) == [("transformers", "cpu"), ("transformers", "gpu")]


def test_the_task_that_is_asked_for_wins_over_the_hubs() -> None:
    odd = replace(llm(), task="image-text-to-text")
    assert ("vllm", "gpu") not in names(runtime_options(odd, catalog()))
    assert ("vllm", "gpu") in names(runtime_options(odd, catalog(), task="text-generation"))


@pytest.mark.parametrize(
    "found",
    [
        profile(library="transformers"),
        profile(weights(4, WeightFormat.GGUF, "Q4_K_M"), task="text-to-speech", library="gguf"),
        profile(weights(4), task="text-to-speech", library="nemo"),
    ],
)
def test_what_no_runtime_serves_is_refused_with_what_was_found_and_what_is_supported(
    found: ModelProfile,
) -> None:
    with pytest.raises(ModelUnreadable) as caught:
        runtime_options(found, catalog())
    assert caught.value.errors[0].field == "hf_model_id"
    assert all(w.format.value in caught.value.detail for w in found.weights)
    assert "library" in caught.value.detail
    for runtime in ("onnx", "sentence-transformers", "diffusers", "vllm", "transformers"):
        assert runtime in (caught.value.advice or "")


# -- the sum ----------------------------------------------------------------------------------------------


def test_a_language_models_sum_by_hand() -> None:
    vllm = option(runtime_options(llm(), catalog(), context_length=4096, concurrency=2), "vllm", gpu=True)
    parts = items(vllm.estimate)
    kv = (
        2 * 32 * 8 * 128 * 2 * 4096 * 2
    )  # keys and values, layers, heads, head size, bytes, tokens, sequences
    activations = 8192 * 32 * 128 * 2 * 16
    context = 3 * GIB // 2
    assert parts["weights"] == 16 * 10**9
    assert parts["KV cache"] == kv
    assert parts["activations"] == activations
    assert parts["runtime context"] == context
    used = 16 * 10**9 + kv + activations + context
    assert vllm.estimate.total_bytes == pytest.approx(used / 0.9, abs=2), "vLLM fills 90 % of a GPU"
    assert vllm.estimate.min_vram_gb == 24
    assert (vllm.shards, vllm.heads, vllm.min_compute_capability) == (True, 32, 8.0)


def test_a_window_caps_the_cache_of_the_layers_that_have_one() -> None:
    full = replace(LLAMA_8B, layers=10)
    windowed = replace(full, sliding_window=1000, sliding_layers=6)
    per_token_and_layer = 2 * 8 * 128 * 2
    assert kv_cache_bytes(full, Load(8000, 1)) == 10 * 8000 * per_token_and_layer
    assert kv_cache_bytes(windowed, Load(8000, 1)) == (4 * 8000 + 6 * 1000) * per_token_and_layer
    assert kv_cache_bytes(windowed, Load(500, 1)) == kv_cache_bytes(full, Load(500, 1)), "shorter than it"


def test_a_default_context_never_exceeds_what_the_model_was_made_for() -> None:
    short = llm(attention=replace(LLAMA_8B, max_positions=2048))
    vllm = option(runtime_options(short, catalog()), "vllm", gpu=True)
    assert items(vllm.estimate)["KV cache"] == kv_cache_bytes(LLAMA_8B, Load(2048, 4))


def test_a_longer_context_than_the_model_was_made_for_is_refused_by_name() -> None:
    with pytest.raises(Invalid) as caught:
        runtime_options(llm(), catalog(), context_length=200_000)
    assert (caught.value.errors[0].field, caught.value.errors[0].rule) == ("context_length", "model_limit")
    assert "131072" in (caught.value.advice or "")


def test_concessions_tell_what_less_would_need_the_smallest_cut_first() -> None:
    vllm = option(runtime_options(llm(), catalog(), context_length=32_768, concurrency=8), "vllm", gpu=True)
    totals = [c.total_bytes for c in vllm.concessions]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] < vllm.estimate.total_bytes
    by_words = {c.change: c.total_bytes for c in vllm.concessions}
    again = runtime_options(llm(), catalog(), context_length=8192, concurrency=8)
    assert by_words["ask for context_length ≤ 8192"] == option(again, "vllm", gpu=True).estimate.total_bytes
    again = runtime_options(llm(), catalog(), context_length=32_768, concurrency=1)
    assert by_words["ask for concurrency ≤ 1"] == option(again, "vllm", gpu=True).estimate.total_bytes


def test_all_experts_of_a_mixture_count_though_few_are_used_at_a_time() -> None:
    mixtral = llm(weights(93.4), attention=replace(LLAMA_8B, max_positions=32_768))
    vllm = option(runtime_options(mixtral, catalog()), "vllm", gpu=True)
    assert items(vllm.estimate)["weights"] == 93_400_000_000
    assert vllm.estimate.min_vram_gb == 141


def test_packed_quantisation_counts_its_bytes_and_needs_no_newer_gpu_than_its_kind() -> None:
    awq = option(runtime_options(llm(weights(5.7, dtype="AWQ")), catalog()), "vllm", gpu=True)
    assert items(awq.estimate)["weights"] == 5_700_000_000
    assert awq.min_compute_capability == 7.0
    fp8 = option(runtime_options(llm(weights(9, dtype="F8_E4M3")), catalog()), "vllm", gpu=True)
    assert fp8.min_compute_capability == 8.9


def test_an_unlisted_pipeline_needs_its_weights_and_35_percent() -> None:
    pipeline = profile(weights(10, diffusers=True), task="text-to-image", library="diffusers")
    (diffusers,) = runtime_options(pipeline, catalog())
    assert diffusers.estimate.total_bytes == pytest.approx(13.5e9, abs=2)
    assert diffusers.estimate.min_vram_gb == 16
    items(diffusers.estimate)


def test_a_gguf_of_unknown_shape_needs_its_file_and_35_percent() -> None:
    gguf = llm(weights(4, WeightFormat.GGUF, "Q4_K_M"), attention=None)
    (vllm,) = runtime_options(gguf, catalog())
    assert vllm.estimate.total_bytes == pytest.approx(5.4e9, abs=2)
    assert "shape is not known" in vllm.estimate.items[-1].how
    assert vllm.concessions == (), "nothing is known that could be asked less of"


def test_the_registry_wins_over_what_the_files_tell() -> None:
    flux = replace(
        profile(weights(99, dtype="F32", diffusers=True), task="text-to-image", library="diffusers"),
        repo_id="Black-Forest-Labs/flux.1-DEV",
    )
    (diffusers,) = runtime_options(flux, catalog())
    parts = items(diffusers.estimate)
    assert parts["transformer"] == 11_901_000_000 * 2
    assert diffusers.estimate.min_vram_gb == 48
    assert diffusers.min_compute_capability == 8.0, "the listed dtype is BF16"
    assert "16.87 B parameters" in diffusers.estimate.items[-1].how
    assert diffusers.estimate.items[-1].name == "registry"


def test_every_listed_model_is_estimated_at_its_listed_tier() -> None:
    for spec in catalog().models.values():
        listed = replace(profile(weights(1, diffusers=True), library="diffusers"), repo_id=spec.repo_id)
        (diffusers,) = runtime_options(listed, catalog(), task=spec.task)
        assert diffusers.estimate.min_vram_gb == spec.min_vram_gb


def test_a_cpu_estimate_has_no_cuda_context() -> None:
    encoder = profile(weights(1, dtype="F32"), library="sentence-transformers", task="feature-extraction")
    options = runtime_options(encoder, catalog())
    cpu, gpu = (option(options, "sentence-transformers", gpu=on_gpu) for on_gpu in (False, True))
    assert "CUDA" not in " ".join(item.how for item in cpu.estimate.items)
    assert "CUDA" in " ".join(item.how for item in gpu.estimate.items)
    assert cpu.min_compute_capability is None
