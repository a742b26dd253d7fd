"""What the files of a model repository say: which engine runs it, what that engine reads, which task it is.

Pure functions on file names and `config.json`, so that nothing has to be downloaded to decide what to
download: a repository may hold the same weights ten times over, for ten runtimes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import JsonObject

TEXT_CLASSIFICATION = "text-classification"
FEATURE_EXTRACTION = "feature-extraction"
IMAGE_CLASSIFICATION = "image-classification"
TENSORS = "tensors"
TASKS = (TEXT_CLASSIFICATION, FEATURE_EXTRACTION, IMAGE_CLASSIFICATION, TENSORS)

# In the order of preference: exporters write the first, older repositories carry the second.
GRAPHS = ("onnx/model.onnx", "model.onnx")

_TOKENIZER_FILES = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
_COMMON_FILES = frozenset(
    {
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "preprocessor_config.json",
        "sentence_bert_config.json",
    }
)
_FOREIGN_FOLDERS = frozenset({"onnx", "openvino", "coreml", "tflite", "flax", "tf"})


def graph_of(files: Collection[str]) -> str | None:
    """The ONNX graph to serve, or None. Quantised and per-device variants are not chosen."""
    return next((name for name in GRAPHS if name in files), None)


def choose_engine(files: Collection[str], asked: str | None, available: Mapping[str, str | None]) -> str:
    """The engine for a repository with these files.

    `available` maps each engine to None, or to the reason why it cannot be used here.
    Raises LoadFailed with what is missing and what to do.
    """
    wanted = asked or _natural_engine(files)
    if wanted is None:
        raise LoadFailed(
            "no engine can serve this model: it has neither onnx/model.onnx nor model.onnx, "
            "and no modules.json of a sentence-transformers model"
        )
    if wanted == "onnx" and graph_of(files) is None:
        raise LoadFailed("engine onnx needs onnx/model.onnx or model.onnx in the model, and there is neither")
    reason = available[wanted]
    if reason is not None:
        raise LoadFailed(f"engine {wanted} is needed and cannot be used here: {reason}")
    return wanted


def _natural_engine(files: Collection[str]) -> str | None:
    if graph_of(files) is not None:
        return "onnx"
    return "sentence-transformers" if "modules.json" in files else None


def files_needed(engine: str, files: Collection[str]) -> list[str]:
    """The files of a repository that an engine reads, sorted; each set of weights once."""
    small = {name for name in files if _is_small_file(name)}
    weights = _onnx_weights(files) if engine == "onnx" else _torch_weights(files)
    return sorted(small | weights)


def _is_small_file(name: str) -> bool:
    path = PurePosixPath(name)
    if len(path.parts) == 1:
        return name in _COMMON_FILES or name in _TOKENIZER_FILES
    # A sentence-transformers module keeps its settings in a numbered folder (1_Pooling/config.json).
    return len(path.parts) == 2 and path.name == "config.json" and path.parts[0][:1].isdecimal()


def _onnx_weights(files: Collection[str]) -> set[str]:
    graph = graph_of(files)
    if graph is None:
        return set()
    # Tensors over 2 GB lie beside the graph, in one or more files named after it.
    beside = (f"{graph}_data", f"{graph}.data")
    return {graph} | {name for name in files if name.startswith(beside)}


def _torch_weights(files: Collection[str]) -> set[str]:
    def at_home(name: str) -> bool:
        return PurePosixPath(name).parts[0] not in _FOREIGN_FOLDERS

    safe = {
        name for name in files if name.endswith((".safetensors", ".safetensors.index.json")) and at_home(name)
    }
    folders_with_safe = {str(PurePosixPath(name).parent) for name in safe}
    pickled = {
        name
        for name in files
        if PurePosixPath(name).name.startswith("pytorch_model")
        and at_home(name)
        and str(PurePosixPath(name).parent) not in folders_with_safe
    }
    return safe | pickled


def detect_task(config: JsonObject | None, files: Collection[str]) -> str:
    """The task of a model, from its `config.json` and the files it has."""
    architectures = config.get("architectures") if config else None
    for name in architectures if isinstance(architectures, list) else []:
        if isinstance(name, str) and name.endswith("ForSequenceClassification"):
            return TEXT_CLASSIFICATION
        if isinstance(name, str) and name.endswith("ForImageClassification"):
            return IMAGE_CLASSIFICATION
    if "modules.json" in files or "1_Pooling/config.json" in files:
        return FEATURE_EXTRACTION
    return TENSORS
