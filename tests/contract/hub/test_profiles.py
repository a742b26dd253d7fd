"""What the adapter makes of each layout that repositories have, through the real client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.adapters.hub import HuggingFaceHub, Limits
from moorage.adapters.registry import catalog
from moorage.domain.estimate import runtime_options
from moorage.domain.model import HubModel, ModelProfile, WeightFormat
from moorage.testing.hub import HubStandIn

MakeRepo = Callable[[dict[str, Any]], Path]  # Any: any JSON object, text or bytes
Safetensors = Callable[[dict[str, tuple[str, list[int]]]], bytes]
Profile = Callable[[dict[str, Any]], Any]  # Any: an awaitable of a profile; content as above

CARD = "---\nlibrary_name: {library}\npipeline_tag: {task}\n---\n# A model\n"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


@pytest.fixture
def profile(hub: HubStandIn, make_repo: MakeRepo) -> Profile:
    async def read(files: dict[str, Any]) -> ModelProfile:
        sha = await hub.add_repo("acme/model", make_repo(files))
        client = HuggingFaceHub(hub.url)
        found = await client.profile(HubModel("acme/model"), None)
        assert found.revision == sha, "pinned to the commit"
        await client.aclose()
        return found

    return read


async def test_a_language_model_with_facts_for_its_cache(profile: Profile, safetensors: Safetensors) -> None:
    weights = safetensors({"a": ("BF16", [64, 64]), "b": ("BF16", [64]), "norm": ("F32", [8])})
    found: ModelProfile = await profile({"config.json": LLAMA, "model.safetensors": weights})
    (only,) = found.weights
    assert {item.name: item.bytes for item in only.items} == {
        "weights BF16": 64 * 64 * 2 + 64 * 2,
        "weights F32": 32,
    }
    assert (only.dtype, only.diffusers) == ("BF16", False)
    assert (found.task, found.library, found.architectures) == (
        "text-generation",
        "transformers",
        ("LlamaForCausalLM",),
    )
    assert found.attention is not None
    assert (found.attention.kv_heads, found.attention.head_dim) == (2, 8)
    assert runtime_options(found, catalog())[0].runtime == "vllm"


async def test_shards_are_summed_and_a_consolidated_copy_is_not_counted(
    profile: Profile, safetensors: Safetensors
) -> None:
    first, second = safetensors({"a": ("F16", [100])}), safetensors({"b": ("F16", [50])})
    found: ModelProfile = await profile(
        {
            "config.json": LLAMA,
            "model.safetensors.index.json": {
                "metadata": {"total_size": 300},
                "weight_map": {
                    "a": "model-00001-of-00002.safetensors",
                    "b": "model-00002-of-00002.safetensors",
                },
            },
            "model-00001-of-00002.safetensors": first,
            "model-00002-of-00002.safetensors": second,
            "consolidated.safetensors": safetensors({"ab": ("F16", [150])}),
            "original/model.safetensors": first,
        }
    )
    assert [w.bytes for w in found.weights] == [300]
    assert "1 more files" in found.weights[0].items[0].how


async def test_of_very_many_shards_only_the_sizes_are_read(
    hub: HubStandIn, make_repo: MakeRepo, safetensors: Safetensors
) -> None:
    shards = {f"model-0000{n}-of-00004.safetensors": safetensors({"a": ("BF16", [10])}) for n in range(1, 5)}
    await hub.add_repo("acme/many", make_repo({"config.json": LLAMA, **shards}))
    found = await HuggingFaceHub(hub.url, limits=Limits(headers=3)).profile(HubModel("acme/many"), None)
    assert found.weights[0].bytes == sum(map(len, shards.values()))
    assert found.weights[0].dtype == "BF16", "as the Hub counts it"
    assert not any(request.range for request in hub.requests)


async def test_packed_weights_are_named_by_their_quantisation_and_counted_in_bytes(
    profile: Profile, safetensors: Safetensors
) -> None:
    config = {**LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}}
    weights = safetensors({"qweight": ("I32", [64, 8]), "scales": ("F16", [64])})
    found: ModelProfile = await profile({"config.json": config, "model.safetensors": weights})
    assert (found.weights[0].dtype, found.weights[0].bytes) == ("AWQ", 64 * 8 * 4 + 128)


async def test_a_pipeline_is_the_sum_of_its_components_each_once(
    profile: Profile, safetensors: Safetensors
) -> None:
    def of(count: int) -> bytes:
        return safetensors({"w": ("F16", [count])})

    found: ModelProfile = await profile(
        {
            "model_index.json": {
                "_class_name": "FluxPipeline",
                "_diffusers_version": "0.30",
                "transformer": ["diffusers", "FluxTransformer2DModel"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "vae": ["diffusers", "AutoencoderKL"],
                "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
                "safety_checker": [None, None],
            },
            "transformer/diffusion_pytorch_model.safetensors.index.json": {
                "weight_map": {"w": "diffusion_pytorch_model-00001-of-00001.safetensors"}
            },
            "transformer/diffusion_pytorch_model-00001-of-00001.safetensors": of(1000),
            "transformer/diffusion_pytorch_model.fp16.safetensors": of(1000),
            "text_encoder/model.safetensors": of(200),
            "text_encoder/pytorch_model.bin": b"x" * 400,
            "vae/diffusion_pytorch_model.safetensors": of(30),
            "safety_checker/model.safetensors": of(5000),
            "scheduler/scheduler_config.json": {},
            "flux1-dev.safetensors": of(1230),
        }
    )
    (only,) = found.weights
    assert {item.name: item.bytes for item in only.items} == {
        "transformer F16": 2000,
        "text_encoder F16": 400,
        "vae F16": 60,
    }
    assert (only.diffusers, found.pipeline_class, found.library) == (True, "FluxPipeline", "diffusers")
    assert [option.runtime for option in runtime_options(found, catalog())] == ["diffusers"]


async def test_a_pipeline_with_one_pickled_component(profile: Profile, safetensors: Safetensors) -> None:
    found: ModelProfile = await profile(
        {
            "model_index.json": {"_class_name": "P", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"]},
            "unet/diffusion_pytorch_model.safetensors": safetensors({"w": ("F32", [10])}),
            "vae/diffusion_pytorch_model.bin": b"x" * 77,
        }
    )
    (only,) = found.weights
    assert only.format is WeightFormat.PYTORCH, "it cannot be loaded without pickle"
    assert {item.name: item.bytes for item in only.items}["vae"] == 77


async def test_sentence_transformers_with_onnx_and_a_dense_module(
    profile: Profile, safetensors: Safetensors
) -> None:
    found: ModelProfile = await profile(
        {
            "modules.json": "[]",
            "config.json": {"architectures": ["BertModel"]},
            "model.safetensors": safetensors({"w": ("F32", [100])}),
            "2_Dense/model.safetensors": safetensors({"w": ("F32", [10])}),
            "pytorch_model.bin": b"x" * 440,
            "onnx/model.onnx": b"x" * 100,
            "onnx/model.onnx_data": b"x" * 300,
            "onnx/model_quantized.onnx": b"x" * 99,
        }
    )
    by_format = {w.format: w.bytes for w in found.weights}
    assert by_format == {WeightFormat.SAFETENSORS: 440, WeightFormat.PYTORCH: 440, WeightFormat.ONNX: 400}
    assert (found.library, found.task) == ("sentence-transformers", "sentence-similarity")
    assert runtime_options(found, catalog())[0].runtime == "onnx"


async def test_gguf_says_which_quantisation_was_counted(profile: Profile) -> None:
    found: ModelProfile = await profile(
        {
            "README.md": CARD.format(library="gguf", task="text-generation"),
            "m.Q4_K_M.gguf": b"x" * 400,
            "m.Q8_0.gguf": b"x" * 800,
        }
    )
    (only,) = found.weights
    assert (only.format, only.dtype, only.bytes) == (WeightFormat.GGUF, "Q4_K_M", 400)
    assert "Q4_K_M was chosen" in only.items[0].how


async def test_pickled_weights_take_their_dtype_from_the_config(profile: Profile) -> None:
    found: ModelProfile = await profile(
        {
            "config.json": {"architectures": ["BertModel"], "torch_dtype": "float16"},
            "pytorch_model.bin": b"x" * 440,
        }
    )
    assert (found.weights[0].format, found.weights[0].dtype) == (WeightFormat.PYTORCH, "F16")


async def test_an_adapter_alone_is_no_model(profile: Profile, safetensors: Safetensors) -> None:
    found: ModelProfile = await profile({"adapter_model.safetensors": safetensors({"lora": ("F16", [8])})})
    assert found.weights == ()


async def test_weights_are_never_downloaded(
    hub: HubStandIn, make_repo: MakeRepo, safetensors: Safetensors
) -> None:
    large = safetensors({"w": ("F32", [1_000_000])})
    await hub.add_repo("acme/large", make_repo({"model.safetensors": large, "onnx/model.onnx": large}))
    await HuggingFaceHub(hub.url).profile(HubModel("acme/large"), None)
    assert [request.range for request in hub.requests if "/resolve/" in request.path] == ["bytes=0-100000"]


async def test_a_branch_and_a_commit_are_read_as_asked(hub: HubStandIn, make_repo: MakeRepo) -> None:
    old = await hub.add_repo("acme/m", make_repo({"model.onnx": b"old"}), branch="v1")
    new = await hub.add_repo("acme/m", make_repo({"model.onnx": b"newer"}))
    client = HuggingFaceHub(hub.url)
    for revision, sha, size in ((None, new, 5), ("v1", old, 3), (old, old, 3)):
        found = await client.profile(HubModel("acme/m", revision), None)
        assert (found.revision, found.weights[0].bytes) == (sha, size)
