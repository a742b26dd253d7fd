"""What is read of torch repositories, by file names alone; and in which precision it is computed."""

from __future__ import annotations

import pytest

from moorage_worker.engines.torch_device import CPU, CUDA, Device, choose_dtype
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import JsonObject
from moorage_worker.model_layout import (
    choose_engine,
    detect_task,
    files_needed,
    missing_components,
)
from moorage_worker.weight_files import choose_variant

BOTH = ["unet/model.safetensors", "unet/model.fp16.safetensors"]
USABLE: dict[str, str | None] = dict.fromkeys(
    ["onnx", "sentence-transformers", "transformers", "diffusers"], None
)

PIPELINE = [
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
REDUNDANT = [
    "flux-dev.safetensors",
    "model.safetensors",
    "onnx/model.onnx",
    "openvino/openvino_model.bin",
    "safety_checker/flax_model.msgpack",
    "text_encoder/model.fp16-00001-of-00001.safetensors",
    "text_encoder/model.safetensors.index.fp16.json",
    "text_encoder/pytorch_model.bin",
    "tokenizer/README.md",
    "unet/diffusion_flax_model.msgpack",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/model.onnx",
    "unet/unet.py",
    "v1-5-pruned.ckpt",
]


def test_a_pipeline_takes_one_set_of_weights_for_each_component() -> None:
    wanted = [name for name in PIPELINE if name != "README.md"]
    assert files_needed("diffusers", [*PIPELINE, *REDUNDANT]) == wanted


def test_a_variant_is_taken_where_a_component_has_it() -> None:
    taken = files_needed("diffusers", [*PIPELINE, *REDUNDANT], "fp16")
    assert [name for name in taken if "model" in name and name != "model_index.json"] == [
        "text_encoder/model.fp16-00001-of-00001.safetensors",
        "text_encoder/model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert files_needed("diffusers", taken, "fp16") == taken  # as when a copy is read again


def test_pickles_are_taken_only_where_there_is_nothing_better() -> None:
    files = ["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.bin", "unet/model.bin"]
    assert files_needed("diffusers", files) == sorted(files)


def test_a_language_model_takes_the_weights_at_its_root() -> None:
    small = ["chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json"]
    weights = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    others = ["consolidated.safetensors", "original/model.safetensors", "pytorch_model.bin", "model.gguf"]
    assert files_needed("transformers", [*small, *weights, *others]) == sorted(small + weights)


@pytest.mark.parametrize(
    ("files", "engine"),
    [
        (["model_index.json", "unet/model.onnx"], "diffusers"),
        (["config.json", "model.safetensors"], "transformers"),
        (["config.json", "pytorch_model.bin"], "transformers"),
        (["config.json", "model.safetensors", "modules.json"], "sentence-transformers"),
        (["config.json", "model.safetensors", "onnx/model.onnx"], "onnx"),
        (["config.json", "generation_config.json", "model.safetensors", "onnx/model.onnx"], "transformers"),
        (["config.json", "generation_config.json", "onnx/model.onnx"], "onnx"),
    ],
)
def test_the_engine_follows_the_files(files: list[str], engine: str) -> None:
    assert choose_engine(files, None, USABLE) == engine


@pytest.mark.parametrize("files", [["config.json"], ["model.safetensors"], ["config.json", "a.safetensors"]])
def test_weights_without_a_config_are_no_model_and_the_reverse(files: list[str]) -> None:
    with pytest.raises(LoadFailed, match="no engine can serve this model"):
        choose_engine(files, None, USABLE)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("Wav2Vec2ForCTC", "automatic-speech-recognition"),
        ("T5ForConditionalGeneration", "tensors"),
    ],
)
def test_the_task_follows_the_architecture(architecture: str, task: str) -> None:
    assert detect_task({"architectures": [architecture]}, []) == task


def test_missing_components_are_those_that_the_index_names() -> None:
    index: JsonObject = {
        "_class_name": "P",
        "safety_checker": [None, None],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "requires_safety_checker": False,
    }
    assert missing_components(index, PIPELINE) == []
    assert missing_components(index, ["unet/config.json", "text_encoder/model.safetensors"]) == ["unet"]
    assert missing_components(index, []) == ["text_encoder", "unet"]


@pytest.mark.parametrize(
    ("files", "asked", "dtype", "variant"),
    [
        (BOTH, None, None, None),
        (BOTH, "fp16", None, "fp16"),
        (BOTH, "fp16", "F32", "fp16"),
        (BOTH, None, "F16", "fp16"),
        (BOTH, None, "float16", "fp16"),
        (BOTH, None, "BF16", None),
        (BOTH, "ema", "F16", None),
        ([*BOTH, "vae/model.safetensors"], None, "F16", None),
        (["unet/model.safetensors"], "fp16", "F16", None),
        (["unet/model.fp16.safetensors", "vae/model.safetensors"], None, None, "fp16"),
        (["unet/model.bf16.safetensors"], None, "F16", "bf16"),
        ([], "fp16", "F16", None),
    ],
)
def test_the_variant_that_is_read_follows_the_wish_then_the_precision(
    files: list[str], asked: str | None, dtype: str | None, variant: str | None
) -> None:
    assert choose_variant(files, asked, dtype) == variant


def test_half_the_bytes_are_fetched_for_half_precision() -> None:
    whole = ["model_index.json", "unet/config.json", *BOTH]
    half = ["model_index.json", "unet/config.json", "unet/model.fp16.safetensors"]
    assert files_needed("diffusers", whole, dtype="F16") == half
    assert files_needed("diffusers", half, dtype="F16") == half  # as when a copy is read again
    assert files_needed("diffusers", whole) == sorted(set(whole) - {BOTH[1]})


@pytest.mark.parametrize(
    ("asked", "variant", "device", "dtype"),
    [
        ("bfloat16", "fp16", Device(CPU), "float32"),
        (None, None, Device(CUDA, bfloat16=True), "bfloat16"),
        (None, None, Device(CUDA), "float16"),
        (None, "fp16", Device(CUDA, bfloat16=True), "float16"),
        ("bfloat16", None, Device(CUDA), "float16"),
        ("float32", "fp16", Device(CUDA), "float32"),
        ("F16", None, Device(CUDA, bfloat16=True), "float16"),
        ("BF16", None, Device(CUDA, bfloat16=True), "bfloat16"),
    ],
)
def test_precision_follows_the_wish_the_files_and_the_device(
    asked: str | None, variant: str | None, device: Device, dtype: str
) -> None:
    assert choose_dtype(asked, variant, device) == dtype


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(LoadFailed, match="dtype int4 is not known; use one of float32"):
        choose_dtype("int4", None, Device(CPU))
