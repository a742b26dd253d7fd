"""Task `feature-extraction`: one vector for each text."""

from __future__ import annotations

import numpy as np

from moorage_worker.engines.base import QUIET, Array, Run
from moorage_worker.engines.onnx.graph import Graph
from moorage_worker.engines.onnx.graph_engine import GraphEngine
from moorage_worker.engines.onnx.pooling import read_pooling, scale_to_unit
from moorage_worker.engines.onnx.tokenization import load_tokenizer
from moorage_worker.engines.parameters import Parameters
from moorage_worker.engines.text_inputs import Text, parse_texts
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import FEATURE_EXTRACTION

_POOLED = "sentence_embedding"
_TOKENS = ("token_embeddings", "last_hidden_state")


class Embedder(GraphEngine):
    """Answers one text or a list of texts with a list of vectors, in order."""

    task = FEATURE_EXTRACTION

    def __init__(self, folder: ModelFolder, config: JsonObject, graph: Graph) -> None:
        super().__init__(graph)
        self._tokenizer = load_tokenizer(folder, config, graph.signature)
        self._pooling = read_pooling(folder)
        self._output = _vectors_output(graph)

    def warm_up(self) -> None:
        self._embed(["warm up"])

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        normalize = Parameters(parameters, ("normalize",)).flag("normalize")
        vectors = self._embed(parse_texts(inputs, pairs=False).texts)
        wanted = self._pooling.normalize if normalize is None else normalize
        return scale_to_unit(vectors) if wanted else vectors

    def _embed(self, texts: list[Text]) -> Array:
        parts = []
        for feeds in self._tokenizer.chunks(texts):
            out = self.graph.run(feeds, [self._output])[self._output]
            parts.append(self._pooling.pool(out, feeds["attention_mask"]) if out.ndim == 3 else out)
        return np.concatenate(parts)


def _vectors_output(graph: Graph) -> str:
    if graph.output(_POOLED) is not None:
        return _POOLED
    named = [name for name in _TOKENS if graph.output(name) is not None]
    name = named[0] if named else graph.output_names[0]
    spec = graph.output(name)
    if spec is None or len(spec.shape) != 3:
        raise LoadFailed(
            f"an embedding graph must put out [N,tokens,size]; its first output {name} is not so"
        )
    if "attention_mask" not in graph.input_names:
        raise LoadFailed("an embedding graph must take attention_mask, so that padding is not counted")
    return name
