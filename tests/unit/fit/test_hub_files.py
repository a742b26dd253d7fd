"""Of all the weights that a repository may hold, each set is counted once."""

from __future__ import annotations

import pytest

from moorage.adapters.hub.files import (
    Sizes,
    gguf_part,
    index_of,
    indexed_part,
    module_folders,
    onnx_part,
    pytorch_part,
    quantisation,
    safetensors_part,
)
from moorage.domain.model import WeightFormat
from moorage.errors import ModelUnreadable

SAFE = WeightFormat.SAFETENSORS


def sizes(*names: str) -> Sizes:
    return {name: 10 + number for number, name in enumerate(names)}


def shards(stem: str, count: int, suffix: str = ".safetensors") -> list[str]:
    return [f"{stem}-{number:05}-of-{count:05}{suffix}" for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        ([*shards("model", 2), "consolidated.00.safetensors"], shards("model", 2)),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["model.fp16.safetensors"], ["model.fp16.safetensors"]),
        (["original/model.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["adapter_model.safetensors"], None),
        (["flux1-dev.safetensors"], None),
        ([], None),
    ],
)
def test_one_set_of_safetensors_is_chosen(names: list[str], chosen: list[str] | None) -> None:
    part = safetensors_part(sizes(*names))
    assert (list(part.files) if part else None) == chosen


def test_a_component_is_looked_for_in_its_own_folder_full_precision_first() -> None:
    unet = sizes(
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.safetensors",
    )
    part = safetensors_part(unet, "unet")
    assert part is not None
    assert part.files == ("unet/diffusion_pytorch_model.safetensors",)
    pickled = pytorch_part(unet, "unet")
    assert pickled is not None
    assert pickled.files == ("unet/diffusion_pytorch_model.bin",)
    assert pytorch_part(unet, "vae") is None


@pytest.mark.parametrize(
    "names",
    [
        shards("transformer/diffusion_pytorch_model.fp16", 2),
        [f"transformer/diffusion_pytorch_model-0000{n}-of-00002.fp16.safetensors" for n in (1, 2)],
    ],
)
def test_both_ways_to_write_the_variant_of_a_shard_are_known(names: list[str]) -> None:
    part = safetensors_part(sizes(*names), "transformer")
    assert part is not None
    assert (list(part.files), part.note) == (names, "variant fp16")


def test_missing_shards_are_told() -> None:
    with pytest.raises(ModelUnreadable, match="2 of 3 files"):
        safetensors_part(sizes(*shards("model", 3)[:2]))


def test_an_index_names_the_shards_whatever_they_are_called() -> None:
    there = sizes(
        "model.safetensors.index.json", "model.safetensors-00001-of-00002.safetensors", "rest.safetensors"
    )
    name = index_of(there, "", SAFE)
    assert name == "model.safetensors.index.json"
    weight_map = {
        "a": "model.safetensors-00001-of-00002.safetensors",
        "b": "rest.safetensors",
        "c": "rest.safetensors",
    }
    part = indexed_part({"weight_map": weight_map}, name, there, SAFE)
    assert part.files == ("model.safetensors-00001-of-00002.safetensors", "rest.safetensors")


def test_an_index_beside_one_whole_file_is_not_needed() -> None:
    assert index_of(sizes("model.safetensors", "model.safetensors.index.json"), "", SAFE) is None


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": "../gone.safetensors"}}])
def test_a_broken_index_is_refused(index: dict[str, object]) -> None:
    with pytest.raises(ModelUnreadable):
        indexed_part(index, "model.safetensors.index.json", sizes("model.safetensors.index.json"), SAFE)


def test_the_onnx_graph_comes_with_its_external_data_and_without_variants() -> None:
    part = onnx_part(
        sizes(
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "onnx/model_quantized.onnx",
            "model.onnx",
            "onnx/model_O4.onnx",
        )
    )
    assert part is not None
    assert part.files == ("onnx/model.onnx", "onnx/model.onnx_data")
    assert onnx_part(sizes("onnx/model_quantized.onnx")) is None


def test_one_gguf_quantisation_is_chosen_and_named() -> None:
    part = gguf_part(sizes("m.Q2_K.gguf", "m.Q8_0.gguf", "m.Q4_K_M.gguf", "mmproj-m-F16.gguf", "m.F16.gguf"))
    assert part is not None
    assert (part.files, part.dtype) == (("m.Q4_K_M.gguf",), "Q4_K_M")
    assert part.note == "the quantisation Q4_K_M was chosen, 3 others lie beside it"


def test_without_a_usual_quantisation_the_smallest_is_chosen() -> None:
    part = gguf_part({"m.IQ3_XS.gguf": 30, "m.IQ2_XS.gguf": 20, "m.TQ1.gguf": 25})
    assert part is not None
    assert part.files == ("m.IQ2_XS.gguf",)


def test_a_split_gguf_is_one_set() -> None:
    names = shards("q8/m-Q8_0", 3, ".gguf")
    part = gguf_part(sizes(*names))
    assert part is not None
    assert (list(part.files), part.dtype) == (names, "Q8_0")
    with pytest.raises(ModelUnreadable):
        gguf_part(sizes(*names[:1]))


@pytest.mark.parametrize(
    ("stem", "told"),
    [
        ("mistral-7b-instruct-v0.2.Q4_K_M", "Q4_K_M"),
        ("Qwen2.5-7B-Instruct-q5_k_s", "Q5_K_S"),
        ("x/llama-3-IQ3_XXS", "IQ3_XXS"),
        ("gpt-bf16", "BF16"),
        ("model", None),
    ],
)
def test_a_file_name_tells_its_quantisation(stem: str, told: str | None) -> None:
    assert quantisation(stem) == told


def test_folders_of_sentence_transformers_modules() -> None:
    assert module_folders(sizes("1_Pooling/config.json", "2_Dense/model.safetensors", "onnx/model.onnx")) == (
        "1_Pooling",
        "2_Dense",
    )
