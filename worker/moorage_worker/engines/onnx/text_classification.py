"""Task `text-classification`: texts in, labels with scores out."""

from __future__ import annotations

import numpy as np

from moorage_worker.engines.base import QUIET, Run
from moorage_worker.engines.labels import CLASSIFIER_PARAMETERS, natural_function, ranked, read_labels
from moorage_worker.engines.onnx.graph import Graph
from moorage_worker.engines.onnx.graph_engine import GraphEngine, logits_output
from moorage_worker.engines.onnx.tokenization import load_tokenizer
from moorage_worker.engines.parameters import Parameters
from moorage_worker.engines.text_inputs import parse_texts
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import TEXT_CLASSIFICATION


class TextClassifier(GraphEngine):
    """Answers one text with a list of labels, a list of texts with a list of such lists."""

    task = TEXT_CLASSIFICATION

    def __init__(self, folder: ModelFolder, config: JsonObject, graph: Graph) -> None:
        super().__init__(graph)
        self._tokenizer = load_tokenizer(folder, config, graph.signature)
        self._output = logits_output(graph)
        self._config = config
        self._labels: list[str] = []

    def warm_up(self) -> None:
        """Also learns how many labels there are, since a graph may leave that size open."""
        feeds = next(self._tokenizer.chunks(["warm up"]))
        count = self.graph.run(feeds, [self._output])[self._output].shape[-1]
        self._labels = read_labels(self._config, count)

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        asked = Parameters(parameters, CLASSIFIER_PARAMETERS)
        batch = parse_texts(inputs, pairs=True)
        chunks = [
            self.graph.run(c, [self._output])[self._output] for c in self._tokenizer.chunks(batch.texts)
        ]
        function = natural_function(self._config, len(self._labels))
        rows = ranked(np.concatenate(chunks), self._labels, function, asked)
        return rows[0] if batch.single else rows
