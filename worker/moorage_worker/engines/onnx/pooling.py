"""From token vectors to one vector a text, as the repository's sentence-transformers settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moorage_worker.engines.base import Array
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import Json
from moorage_worker.model_folder import ModelFolder

# Far below any real norm or token count: keeps 0/0 at 0.
_TINY = 1e-9


def _cls(tokens: Array, mask: Array) -> Array:
    first: Array = tokens[np.arange(len(tokens)), mask.argmax(axis=1)]
    return first


def _max(tokens: Array, mask: Array) -> Array:
    largest: Array = np.where(mask[:, :, None] > 0, tokens, -np.inf).max(axis=1)
    return largest


def _sum(tokens: Array, mask: Array) -> Array:
    total: Array = (tokens * mask[:, :, None]).sum(axis=1)
    return total


def _count(mask: Array) -> Array:
    count: Array = np.maximum(mask.sum(axis=1, keepdims=True), _TINY)
    return count


def _mean(tokens: Array, mask: Array) -> Array:
    mean: Array = _sum(tokens, mask) / _count(mask)
    return mean


def _mean_sqrt_len(tokens: Array, mask: Array) -> Array:
    scaled: Array = _sum(tokens, mask) / np.sqrt(_count(mask))
    return scaled


def _last_token(tokens: Array, mask: Array) -> Array:
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    vectors: Array = tokens[np.arange(len(tokens)), last]
    return vectors


# In the order in which sentence-transformers joins several that its older settings turn on.
_MODES: dict[str, Callable[[Array, Array], Array]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "lasttoken": _last_token,
}
_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token vectors become a text's vector, and whether that is scaled to length 1."""

    modes: tuple[str, ...]
    normalize: bool

    def pool(self, tokens: Array, mask: Array) -> Array:
        """`tokens` [texts, tokens, size] and `mask` [texts, tokens] → [texts, size × modes]."""
        # Half precision would lose most of a long sum.
        wide, weights = tokens.astype(np.float32), mask.astype(np.float32)
        return np.concatenate([_MODES[mode](wide, weights) for mode in self.modes], axis=1)


def scale_to_unit(vectors: Array) -> Array:
    """Each row divided by its Euclidean length."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Array = vectors / np.maximum(lengths, _TINY)
    return unit


def read_pooling(folder: ModelFolder) -> Pooling:
    """Read `modules.json` and the pooling module's settings. Without them: the mean, not scaled.

    Raises LoadFailed for a module or a mode that this engine does not do.
    """
    prompts = folder.json_object("config_sentence_transformers.json") or {}
    if prompts.get("default_prompt_name"):
        raise LoadFailed(
            "the model puts a prompt before each text; use the sentence-transformers engine for it"
        )
    pooling_folder, normalize = "1_Pooling", False
    for kind, path in _modules(folder):
        if kind == "Pooling":
            pooling_folder = path
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise LoadFailed(
                f"modules.json asks for {kind}; use the sentence-transformers engine for this model"
            )
    settings = folder.json_object(f"{pooling_folder}/config.json") or {"pooling_mode": "mean"}
    return Pooling(_modes(settings), normalize)


def _modules(folder: ModelFolder) -> list[tuple[str, str]]:
    modules = folder.json("modules.json")
    if modules is None:
        return []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise LoadFailed("modules.json must hold a list of objects")
    described = [module for module in modules if isinstance(module, dict)]
    return [(str(module.get("type")).rpartition(".")[2], str(module.get("path"))) for module in described]


def _modes(settings: dict[str, Json]) -> tuple[str, ...]:
    asked = _asked_modes(settings)
    unknown = [mode for mode in asked if mode not in _MODES]
    if unknown:
        raise LoadFailed(f"pooling mode {unknown[0]} is not supported; use the sentence-transformers engine")
    if not asked:
        raise LoadFailed("the pooling module's config.json turns no pooling mode on")
    return asked


def _asked_modes(settings: dict[str, Json]) -> tuple[str, ...]:
    """New settings name one mode or a list in `pooling_mode`; older ones have a flag for each."""
    named = settings.get("pooling_mode")
    if isinstance(named, str):
        return (named,)
    if isinstance(named, list):
        return tuple(str(mode) for mode in named)
    flags = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on is True]
    asked = [_OLD_NAMES.get(flag, flag) for flag in flags]
    return tuple(sorted(asked, key=lambda mode: list(_MODES).index(mode) if mode in _MODES else len(_MODES)))
