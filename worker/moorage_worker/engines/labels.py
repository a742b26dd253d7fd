"""From logits to labelled scores, for every classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moorage_worker.engines.base import Array
from moorage_worker.engines.parameters import Parameters
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import Json, JsonObject

CLASSIFIER_PARAMETERS = ("top_k", "confidence_threshold", "function_to_apply")
_FUNCTIONS = ("softmax", "sigmoid", "none")


def read_labels(config: JsonObject, count: int) -> list[str]:
    """The labels of `count` classes from `id2label`; `LABEL_0` and so on when the model names none.

    Raises LoadFailed when the model names another number of labels than it has outputs.
    """
    named = config.get("id2label")
    if not isinstance(named, dict) or not named:
        return [f"LABEL_{i}" for i in range(count)]
    if set(named) != {str(i) for i in range(count)}:
        raise LoadFailed(f"config.json names {len(named)} labels in id2label, the model has {count} outputs")
    return [str(named[str(i)]) for i in range(count)]


def natural_function(config: JsonObject, count: int) -> str:
    """What turns this model's logits into scores, by its `problem_type`."""
    problem = config.get("problem_type")
    if problem == "regression":
        return "none"
    return "sigmoid" if problem == "multi_label_classification" or count == 1 else "softmax"


def scores_of(logits: Array, function: str) -> Array:
    """Scores of the same shape; computed in float64, stable for large logits."""
    wide = logits.astype(np.float64)
    if function == "softmax":
        powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
        shares: Array = powers / powers.sum(axis=-1, keepdims=True)
        return shares
    if function == "sigmoid":
        return 0.5 * (1.0 + np.tanh(0.5 * wide))
    return wide


def ranked(logits: Array, labels: Sequence[str], function: str, parameters: Parameters) -> list[list[Json]]:
    """For each row of `logits` [items, labels], `{"label", "score"}` best first, cut as the caller asks."""
    top_k = parameters.whole("top_k", 1, 1_000_000)
    threshold = parameters.number("confidence_threshold", 0.0, 1.0)
    scores = scores_of(logits, parameters.choice("function_to_apply", _FUNCTIONS) or function)
    rows: list[list[Json]] = []
    for row in scores:
        best = np.argsort(-row, kind="stable")[:top_k]
        kept = [i for i in best if threshold is None or row[i] >= threshold]
        rows.append([{"label": labels[i], "score": float(row[i])} for i in kept])
    return rows
