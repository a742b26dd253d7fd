"""Loads a model folder into the ONNX engine that fits its task."""

from __future__ import annotations

from moorage_worker.engines.base import Engine
from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.engines.onnx.embeddings import Embedder
from moorage_worker.engines.onnx.graph import open_graph
from moorage_worker.engines.onnx.image_classification import ImageClassifier
from moorage_worker.engines.onnx.raw_tensors import TensorRunner
from moorage_worker.engines.onnx.text_classification import TextClassifier
from moorage_worker.errors import LoadFailed
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import (
    FEATURE_EXTRACTION,
    IMAGE_CLASSIFICATION,
    TENSORS,
    TEXT_CLASSIFICATION,
    detect_task,
    graph_of,
)


def load(folder: ModelFolder, options: LoadOptions) -> Engine:
    """Open the graph and build the task around it. Raises LoadFailed."""
    files = folder.files()
    name = graph_of(files)
    if name is None:
        raise LoadFailed("there is neither onnx/model.onnx nor model.onnx in the model")
    config = folder.json_object("config.json") or {}
    graph = open_graph(folder.path(name), options.threads)
    task = options.task or detect_task(config, files)
    if task == TEXT_CLASSIFICATION:
        return TextClassifier(folder, config, graph)
    if task == FEATURE_EXTRACTION:
        return Embedder(folder, config, graph)
    if task == IMAGE_CLASSIFICATION:
        return ImageClassifier(folder, config, graph)
    if options.task not in (None, TENSORS):
        raise LoadFailed(f"engine onnx does not serve {options.task}; serve this model with task {TENSORS}")
    return TensorRunner(graph)
