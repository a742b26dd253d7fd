"""Task `text-classification` on torch: the same inputs and answers as on ONNX."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from moorage_worker.engines.base import QUIET, Array, Engine, Run
from moorage_worker.engines.labels import CLASSIFIER_PARAMETERS, natural_function, ranked, read_labels
from moorage_worker.engines.no_tensors import NoTensors
from moorage_worker.engines.parameters import Parameters
from moorage_worker.engines.text_inputs import Text, parse_texts
from moorage_worker.engines.transformers.pretrained import Pretrained
from moorage_worker.errors import Cancelled
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.model_layout import TEXT_CLASSIFICATION

_CHUNK = 32
# Tokenizers write an absurd model_max_length when they do not know it.
_SANE_LENGTH = 1_000_000


class TorchTextClassifier(NoTensors):
    """Answers one text with a list of labels, a list of texts with a list of such lists."""

    task = TEXT_CLASSIFICATION

    def __init__(self, model: Any, tokenizer: Any, config: JsonObject) -> None:  # of transformers: not typed
        self._model = model
        self._tokenizer = tokenizer
        self._config = config
        self._labels = read_labels(config, model.config.num_labels)
        self._window = _window(tokenizer, model)
        # Without a padding token texts cannot be of different lengths in one run.
        self._chunk = _CHUNK if tokenizer.pad_token_id is not None else 1
        # The tokenizer is not safe to share.
        self._one_at_a_time = threading.Lock()

    def warm_up(self) -> None:
        self.infer("warm up", {})

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        asked = Parameters(parameters, CLASSIFIER_PARAMETERS)
        batch = parse_texts(inputs, pairs=True)
        chunks = []
        with self._one_at_a_time, torch.inference_mode():
            for start in range(0, len(batch.texts), self._chunk):
                if run.cancelled:
                    raise Cancelled
                chunks.append(self._logits(batch.texts[start : start + self._chunk]))
                done = min(start + self._chunk, len(batch.texts))
                run.progress(done / len(batch.texts), f"text {done} of {len(batch.texts)}")
        function = natural_function(self._config, len(self._labels))
        rows = ranked(np.concatenate(chunks), self._labels, function, asked)
        return rows[0] if batch.single else rows

    def _logits(self, texts: Sequence[Text]) -> Array:
        """[texts, labels], float32."""
        pairs = any(isinstance(text, tuple) for text in texts)
        if pairs and not all(isinstance(text, tuple) for text in texts):
            return np.concatenate([self._logits([text]) for text in texts])
        encoded = self._tokenizer(
            list(texts),
            padding=len(texts) > 1,
            truncation=True,
            max_length=self._window,
            return_tensors="pt",
        )
        logits = self._model(**encoded.to(self._model.device)).logits
        return np.asarray(logits.float().cpu().numpy())


def _window(tokenizer: Any, model: Any) -> int | None:
    lengths = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None))
    known = [length for length in lengths if isinstance(length, int) and 0 < length < _SANE_LENGTH]
    return min(known, default=None)


def load_classifier(pretrained: Pretrained) -> Engine:
    model = pretrained.model(AutoModelForSequenceClassification)
    return TorchTextClassifier(model, pretrained.companion(AutoTokenizer), pretrained.config)
