"""What a KV cache is computed from, out of a model's `config.json`.

The names differ by family. Where a config leaves doubt the larger cache is assumed; where it makes no sense
nothing is, and the estimator falls back to its general headroom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moorage.domain.model import Attention

Config = Mapping[str, object]

_GENERATES = ("ForCausalLM", "LMHeadModel")
_ABSURD = 10_000_000  # no layer, head or position count reaches this
_WINDOW_EVERYWHERE = frozenset({"mistral", "mixtral", "starcoder2", "phi3"})
_WINDOWED = frozenset({"sliding_attention"})
_WITHOUT_CACHE = frozenset({"linear_attention", "mamba", "recurrent", "conv"})


def attention_of(config: Config) -> Attention | None:
    """None when the model does not generate text, or its shape cannot be told."""
    architectures = strings(config.get("architectures"))
    nested = config.get("text_config")
    multimodal = isinstance(nested, Mapping) and any(
        a.endswith("ForConditionalGeneration") for a in architectures
    )
    if not multimodal and not any(a.endswith(_GENERATES) for a in architectures):
        return None
    return _shape({**config, **nested} if isinstance(nested, Mapping) else config)


def _shape(config: Config) -> Attention | None:
    layers = _count(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _count(config, "num_attention_heads", "n_head", "n_heads")
    hidden = _count(config, "hidden_size", "n_embd", "d_model")
    if layers is None or heads is None:
        return None
    head_dim = _count(config, "head_dim", "attention_head_dim") or (hidden // heads if hidden else None)
    if not head_dim:
        return None
    window = _count(config, "sliding_window")
    cached, windowed = _layer_kinds(config, layers)
    return Attention(
        layers=cached,
        heads=heads,
        kv_heads=_kv_heads(config, heads),
        head_dim=head_dim,
        max_positions=_count(config, "max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"),
        sliding_window=window if windowed else None,
        sliding_layers=windowed if window else 0,
        kv_dtype_bytes=_kv_dtype_bytes(config),
    )


def _kv_heads(config: Config, heads: int) -> int:
    if config.get("multi_query") is True:
        return 1
    return _count(config, "num_key_value_heads", "num_kv_heads", "n_head_kv") or heads


def _layer_kinds(config: Config, layers: int) -> tuple[int, int]:
    """(layers that keep a cache, those of them that keep only a window)."""
    kinds = strings(config.get("layer_types"))
    if len(kinds) == layers:
        without = sum(kind in _WITHOUT_CACHE for kind in kinds)
        return layers - without, sum(kind in _WINDOWED for kind in kinds)
    pattern = _count(config, "sliding_window_pattern")
    if pattern is not None:  # every pattern-th layer attends to everything
        return layers, layers - layers // pattern
    return layers, layers if config.get("model_type") in _WINDOW_EVERYWHERE else 0


def _kv_dtype_bytes(config: Config) -> float:
    dtype = config.get("dtype") or config.get("torch_dtype")
    return 4.0 if dtype == "float32" else 2.0


def _count(config: Config, *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _ABSURD:
            return value
    return None


def strings(value: object) -> tuple[str, ...]:
    """The strings of a JSON list, () for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(item for item in value if isinstance(item, str))
