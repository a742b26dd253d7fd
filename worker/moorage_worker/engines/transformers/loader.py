"""Loads a transformers model from a folder, for the task that its architecture is made for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from moorage_worker.engines.base import Engine
from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.engines.torch_device import choose_dtype, find_device
from moorage_worker.engines.transformers.pretrained import Pretrained
from moorage_worker.engines.transformers.speech_recognition import load_recognizer
from moorage_worker.engines.transformers.text_classification import load_classifier
from moorage_worker.engines.transformers.text_generation import load_generator
from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import (
    SPEECH_RECOGNITION,
    TEXT_CLASSIFICATION,
    TEXT_GENERATION,
    detect_task,
)
from moorage_worker.weight_files import choose_variant

log = logging.getLogger(__name__)

_LOADERS: dict[str, Callable[[Pretrained], Engine]] = {
    TEXT_CLASSIFICATION: load_classifier,
    TEXT_GENERATION: load_generator,
    SPEECH_RECOGNITION: load_recognizer,
}


def load(folder: ModelFolder, options: LoadOptions) -> Engine:
    """Load a model and what prepares its inputs. Runs no code of the repository. Raises LoadFailed."""
    config = folder.json_object("config.json")
    if config is None:
        raise LoadFailed("engine transformers needs config.json in the model, and there is none")
    files = folder.files()
    task = options.task or detect_task(config, files)
    if task not in _LOADERS:
        named = config.get("architectures")
        raise LoadFailed(
            f"engine transformers serves {', '.join(_LOADERS)}; this model's task is {task} "
            f"(architectures in config.json: {named})"
        )
    torch.set_num_threads(options.threads)
    variant, device = choose_variant(files, options.variant, options.dtype), find_device()
    dtype = choose_dtype(options.dtype, variant, device)
    # Any: the library's auto classes take these by name.
    weights: dict[str, Any] = {"dtype": getattr(torch, dtype), "variant": variant}
    transformers_logging.disable_progress_bar()
    try:
        engine = _LOADERS[task](Pretrained(folder, config, device.kind, weights))
    except LoadFailed:
        raise
    except Exception as error:  # the libraries below raise anything
        raise LoadFailed(f"the model cannot be loaded by transformers: {cause_line(error)}") from error
    options.progress(1.0)
    log.info("%s on %s in %s", task, device.kind, dtype)
    return engine
