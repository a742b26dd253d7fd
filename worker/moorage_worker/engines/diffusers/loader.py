"""Loads a diffusers pipeline from a folder in the layout of its repository."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline

from moorage_worker.engines.base import Engine
from moorage_worker.engines.diffusers.engine import PipelineEngine
from moorage_worker.engines.diffusers.tasks import choose_task
from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.engines.torch_device import choose_dtype, find_device
from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.json_types import JsonObject
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import IMAGE_TO_IMAGE, PIPELINE_INDEX, missing_components
from moorage_worker.weight_files import choose_variant

log = logging.getLogger(__name__)

_READ, _PLACED = 0.8, 1.0  # how much of a load is done then: most of it is reading


def load(folder: ModelFolder, options: LoadOptions) -> Engine:
    """Load the pipeline that `model_index.json` names. Code from the repository is never run.

    Raises LoadFailed with what is missing or does not fit.
    """
    index = folder.json_object(PIPELINE_INDEX)
    if index is None:
        raise LoadFailed(f"engine diffusers needs {PIPELINE_INDEX} in the model, and there is none")
    files = folder.files()
    missing = missing_components(index, files)
    if missing:
        raise LoadFailed(f"{PIPELINE_INDEX} names {', '.join(missing)}, and not all files of it are there")
    task = choose_task(options.task, *_call_of(index))
    torch.set_num_threads(options.threads)
    variant, device = choose_variant(files, options.variant, options.dtype), find_device()
    dtype = choose_dtype(options.dtype, variant, device)
    _quieten()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder.root),
            dtype=getattr(torch, dtype),
            variant=variant,
            local_files_only=True,
            trust_remote_code=False,
        )
        options.progress(_READ)
        if task == IMAGE_TO_IMAGE:
            pipeline = AutoPipelineForImage2Image.from_pipe(pipeline)
        pipeline.to(device.kind)
    except Exception as error:  # the libraries below raise anything
        raise LoadFailed(f"the model cannot be loaded by diffusers: {cause_line(error)}") from error
    options.progress(_PLACED)
    pipeline.set_progress_bar_config(disable=True)
    log.info("%s on %s in %s", type(pipeline).__name__, device.kind, dtype)
    return PipelineEngine(task, pipeline)


def _call_of(index: JsonObject) -> tuple[str, set[str], set[str]]:
    """The pipeline's name, the arguments that its call takes, and those without a default."""
    name = index.get("_class_name")
    # Any: the library's class by its name.
    pipeline: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(pipeline, type) and issubclass(pipeline, DiffusionPipeline)):
        raise LoadFailed(
            f"{PIPELINE_INDEX} names pipeline {name}, which diffusers {diffusers.__version__} does not have"
        )
    arguments = dict(list(inspect.signature(pipeline.__call__).parameters.items())[1:])
    free = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needs = {n for n, a in arguments.items() if a.default is inspect.Parameter.empty and a.kind not in free}
    return pipeline.__name__, set(arguments), needs


def _quieten() -> None:
    """No progress bars in the log."""
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
