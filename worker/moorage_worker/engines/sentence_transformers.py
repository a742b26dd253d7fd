"""The sentence-transformers engine, on torch: embedding models that have no ONNX graph, or need a GPU.

Behind an extra, since torch is hundreds of megabytes and its builds differ by machine.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from moorage_worker.engines.base import ANY_SIZE, QUIET, Array, Engine, Run, Signature, TensorSpec
from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.engines.parameters import Parameters
from moorage_worker.engines.text_inputs import parse_texts
from moorage_worker.errors import BadInput, LoadFailed, cause_line
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import FEATURE_EXTRACTION

_INPUT, _OUTPUT = "text", "embedding"


class SentenceEmbedder:
    """Answers one text or a list of texts with a list of vectors, in order."""

    task = FEATURE_EXTRACTION

    def __init__(self, model: SentenceTransformer, size: int) -> None:
        self._model = model
        # The tokenizer below is not safe to share: it fails with "Already borrowed" under two threads.
        self._one_at_a_time = threading.Lock()
        self.signature = Signature(
            (TensorSpec(_INPUT, "BYTES", (ANY_SIZE,)),), (TensorSpec(_OUTPUT, "FP32", (ANY_SIZE, size)),)
        )

    def warm_up(self) -> None:
        self._encode(["warm up"], normalize=False)

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        normalize = Parameters(parameters, ("normalize",)).flag("normalize")
        texts = [str(text) for text in parse_texts(inputs, pairs=False).texts]
        return self._encode(texts, normalize=bool(normalize))

    def infer_tensors(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        texts = [str(text) for text in inputs[_INPUT]]
        if not texts:
            raise BadInput(_INPUT, "size", "must hold at least one string")
        return {_OUTPUT: self._encode(texts, normalize=False)}

    def _encode(self, texts: list[str], *, normalize: bool) -> Array:
        """[texts, size]. A model that normalises by itself does so whatever `normalize` says."""
        with self._one_at_a_time, torch.inference_mode():
            vectors = self._model.encode(texts, normalize_embeddings=normalize, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


def load(folder: ModelFolder, options: LoadOptions) -> Engine:
    """Load a sentence-transformers folder. Code from the repository is never run. Raises LoadFailed."""
    if options.task not in (None, FEATURE_EXTRACTION):
        raise LoadFailed(f"engine sentence-transformers serves {FEATURE_EXTRACTION} only, not {options.task}")
    torch.set_num_threads(options.threads)
    try:
        model = SentenceTransformer(str(folder.root), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the libraries below raise anything
        raise LoadFailed(
            f"the model cannot be loaded by sentence-transformers: {cause_line(error)}"
        ) from error
    size = model.get_embedding_dimension()
    if size is None:
        raise LoadFailed("the model does not say how long its vectors are")
    return SentenceEmbedder(model, size)
