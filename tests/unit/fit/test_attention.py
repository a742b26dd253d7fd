"""The shape of a KV cache, out of the configs that model families really write."""

from __future__ import annotations

import pytest

from moorage.adapters.hub.attention import attention_of
from moorage.domain.model import Attention

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def shape(**changes: object) -> Attention:
    found = attention_of({**LLAMA, **changes})
    assert found is not None
    return found


def test_grouped_heads() -> None:
    assert shape() == Attention(layers=32, heads=32, kv_heads=8, head_dim=128, max_positions=131072)


def test_a_head_size_that_is_said_wins_over_the_quotient() -> None:
    assert shape(head_dim=256).head_dim == 256


def test_the_names_of_gpt2_and_one_head_for_all_queries() -> None:
    gpt2 = {
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
    }
    assert attention_of(gpt2) == Attention(layers=12, heads=12, kv_heads=12, head_dim=64, max_positions=1024)
    assert shape(multi_query=True).kv_heads == 1


def test_a_model_of_several_modes_keeps_its_text_part_apart() -> None:
    text = {key: value for key, value in LLAMA.items() if key != "architectures"}
    both = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "num_hidden_layers": 3}
    found = attention_of(both)
    assert found is not None
    assert found.layers == 32


def test_windows_by_layer_kind_by_pattern_and_by_family() -> None:
    kinds = ["sliding_attention"] * 20 + ["full_attention"] * 12
    assert shape(layer_types=kinds, sliding_window=512).sliding_layers == 20
    assert shape(sliding_window_pattern=6, sliding_window=512).sliding_layers == 27
    assert shape(model_type="mistral", sliding_window=4096).sliding_layers == 32
    assert shape(model_type="mistral", sliding_window=None).sliding_layers == 0


def test_a_window_that_is_named_but_not_known_to_be_used_is_not_counted_on() -> None:
    assert shape(model_type="qwen2", sliding_window=32768, use_sliding_window=False).sliding_layers == 0


def test_layers_without_a_cache_are_left_out() -> None:
    kinds = ["linear_attention"] * 24 + ["full_attention"] * 8
    assert shape(layer_types=kinds).layers == 8


def test_full_precision_doubles_the_cache() -> None:
    assert shape(torch_dtype="float32").kv_dtype_bytes == 4.0


@pytest.mark.parametrize(
    "config",
    [
        {},
        {
            "architectures": ["BertModel"],
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_size": 768,
        },
        {"architectures": ["T5ForConditionalGeneration"], "num_layers": 12, "num_heads": 12, "d_model": 768},
        {**LLAMA, "num_hidden_layers": "32"},
        {**LLAMA, "num_attention_heads": -1},
        {**LLAMA, "num_hidden_layers": 10**12},
        {**LLAMA, "hidden_size": None},
        {"architectures": "LlamaForCausalLM", "text_config": 7},
    ],
)
def test_other_models_and_nonsense_have_no_shape(config: dict[str, object]) -> None:
    assert attention_of(config) is None
