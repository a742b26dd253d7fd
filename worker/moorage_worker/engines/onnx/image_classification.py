"""Task `image-classification`: images in, labels with scores out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from moorage_worker.engines.base import QUIET, Array, Run, TensorSpec
from moorage_worker.engines.labels import CLASSIFIER_PARAMETERS, natural_function, ranked, read_labels
from moorage_worker.engines.onnx.graph import Graph
from moorage_worker.engines.onnx.graph_engine import GraphEngine, logits_output
from moorage_worker.engines.onnx.image_preprocessing import read_preprocessing
from moorage_worker.engines.onnx.images import as_base64_png, mode_for, parse_images
from moorage_worker.engines.parameters import Parameters
from moorage_worker.errors import BadInput, LoadFailed
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import IMAGE_CLASSIFICATION
from moorage_worker.tensor_codec import NUMPY_TYPES, check_shape

_ANY_EDGE = 224


class ImageClassifier(GraphEngine):
    """Answers one image with a list of labels, a list of images with a list of such lists."""

    task = IMAGE_CLASSIFICATION

    def __init__(self, folder: ModelFolder, config: JsonObject, graph: Graph) -> None:
        super().__init__(graph)
        self._input = _pixel_input(graph)
        self._mode = mode_for(_channels(self._input, config))
        preprocessor = folder.json_object("preprocessor_config.json")
        if preprocessor is None:
            raise LoadFailed("preprocessor_config.json is missing: image-classification needs it")
        self._preprocessing = read_preprocessing(preprocessor, _channels(self._input, config))
        self._output = logits_output(graph)
        self._config = config
        self._labels: list[str] = []

    def warm_up(self) -> None:
        """Also learns how many labels there are, since a graph may leave that size open."""
        height, width = (size if size > 0 else _ANY_EDGE for size in self._input.shape[2:])
        blank = Image.new(self._mode, (width, height))
        self._labels = read_labels(self._config, self._logits([blank]).shape[-1])
        # The whole way once, since the decoder is loaded with the first image.
        self.infer(as_base64_png(blank), {})

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        asked = Parameters(parameters, CLASSIFIER_PARAMETERS)
        batch = parse_images(inputs, self._mode)
        function = natural_function(self._config, len(self._labels))
        rows = ranked(self._logits(batch.images), self._labels, function, asked)
        return rows[0] if batch.single else rows

    def _logits(self, images: Sequence[Image.Image]) -> Array:
        prepared = [self._preprocessing.apply(image) for image in images]
        if len({array.shape for array in prepared}) > 1:
            raise BadInput("inputs", "shape", "images of one request must have equal sizes for this model")
        pixels = np.stack(prepared).astype(NUMPY_TYPES[self._input.datatype])
        check_shape(pixels.shape, self._input, "inputs")
        return self.graph.run({self._input.name: pixels}, [self._output])[self._output]


def _pixel_input(graph: Graph) -> TensorSpec:
    inputs = graph.signature.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        found = ", ".join(f"{spec.name} {spec.shape_text()}" for spec in inputs)
        raise LoadFailed(f"an image graph must take one tensor [N,C,H,W]; this one takes {found}")
    return inputs[0]


def _channels(spec: TensorSpec, config: JsonObject) -> int:
    declared = config.get("num_channels")
    channels = spec.shape[1] if spec.shape[1] > 0 else declared if isinstance(declared, int) else 3
    if channels not in (1, 3):
        raise LoadFailed(f"an image model must have 1 or 3 channels, this one has {channels}")
    return channels
