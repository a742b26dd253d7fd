"""What the files of a model repository say: which engine runs it, what that engine reads, which task it is.

Pure functions on file names and `config.json`, so that nothing has to be downloaded to decide what to
download: a repository may hold the same weights ten times over, for ten runtimes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import JsonObject
from moorage_worker.weight_files import choose_variant, one_set, read_weight_file

TEXT_CLASSIFICATION = "text-classification"
FEATURE_EXTRACTION = "feature-extraction"
IMAGE_CLASSIFICATION = "image-classification"
TEXT_GENERATION = "text-generation"
SPEECH_RECOGNITION = "automatic-speech-recognition"
TEXT_TO_IMAGE = "text-to-image"
IMAGE_TO_IMAGE = "image-to-image"
TEXT_TO_VIDEO = "text-to-video"
TENSORS = "tensors"
TASKS = (
    TEXT_CLASSIFICATION,
    FEATURE_EXTRACTION,
    IMAGE_CLASSIFICATION,
    TEXT_GENERATION,
    SPEECH_RECOGNITION,
    TEXT_TO_IMAGE,
    IMAGE_TO_IMAGE,
    TEXT_TO_VIDEO,
    TENSORS,
)

PIPELINE_INDEX = "model_index.json"

# In the order of preference: exporters write the first, older repositories carry the second.
GRAPHS = ("onnx/model.onnx", "model.onnx")

_TOKENIZER_FILES = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "spm.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
_COMMON_FILES = frozenset(
    {
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "config_sentence_transformers.json",
        "generation_config.json",
        "model_index.json",
        "modules.json",
        "normalizer.json",
        "preprocessor_config.json",
        "processor_config.json",
        "sentence_bert_config.json",
    }
)
_COMPONENT_FILES = _TOKENIZER_FILES | {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "scheduler_config.json",
    "video_preprocessor_config.json",
}
# What the last word of an architecture's name says. The first that fits.
_TASKS_BY_HEAD = (
    ("ForSequenceClassification", TEXT_CLASSIFICATION),
    ("ForImageClassification", IMAGE_CLASSIFICATION),
    ("ForCausalLM", TEXT_GENERATION),
    ("LMHeadModel", TEXT_GENERATION),
    ("ForCTC", SPEECH_RECOGNITION),
    ("ForSpeechSeq2Seq", SPEECH_RECOGNITION),
    ("WhisperForConditionalGeneration", SPEECH_RECOGNITION),
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
            "no engine can serve this model: it has neither onnx/model.onnx nor model.onnx, no modules.json "
            "of a sentence-transformers model, no model_index.json of a diffusers pipeline, and no "
            "config.json with weights beside it"
        )
    if wanted == "onnx" and graph_of(files) is None:
        raise LoadFailed("engine onnx needs onnx/model.onnx or model.onnx in the model, and there is neither")
    reason = available[wanted]
    if reason is not None:
        raise LoadFailed(f"engine {wanted} is needed and cannot be used here: {reason}")
    return wanted


def _natural_engine(files: Collection[str]) -> str | None:
    if PIPELINE_INDEX in files:
        return "diffusers"
    # A text is written token by token, and one run of a graph makes one token at most.
    if graph_of(files) is not None and not ("generation_config.json" in files and _has_root_weights(files)):
        return "onnx"
    if "modules.json" in files:
        return "sentence-transformers"
    return "transformers" if _has_root_weights(files) else None


def _has_root_weights(files: Collection[str]) -> bool:
    """Whether transformers can load the model: its settings with weights beside them."""
    return "config.json" in files and bool(one_set(_root_files(files), None))


def files_needed(
    engine: str, files: Collection[str], variant: str | None = None, dtype: str | None = None
) -> list[str]:
    """The files of a repository that an engine reads, sorted; of the sets of weights only one.

    `variant` and `dtype` are those of LoadOptions, with the rules of `weight_files.choose_variant`.
    """
    if engine == "onnx":
        return sorted(_small_files(files) | _onnx_weights(files))
    if engine == "diffusers":
        inside = _component_files(files)
        small = {name for name in inside if PurePosixPath(name).name in _COMPONENT_FILES}
        small |= {PIPELINE_INDEX} & set(files)
    elif engine == "transformers":
        inside, small = _root_files(files), _small_files(files)
    else:
        inside, small = [name for name in files if _at_home(name)], _small_files(files)
    return sorted(small | one_set(inside, choose_variant(inside, variant, dtype)))


def _component_files(files: Collection[str]) -> list[str]:
    """Each component has a folder. Weights at the root are the whole pipeline again, for other programs."""
    return [name for name in files if len(PurePosixPath(name).parts) == 2 and _at_home(name)]


def _root_files(files: Collection[str]) -> list[str]:
    return [name for name in files if "/" not in name]


def _small_files(files: Collection[str]) -> set[str]:
    return {name for name in files if _is_small_file(name)}


def missing_components(index: JsonObject, files: Collection[str]) -> list[str]:
    """The components that `model_index.json` names and whose files are not all there, sorted.

    A component with a `config.json` is a model, and has weights.
    """
    folders = {str(PurePosixPath(name).parent) for name in files}
    weighty = {file.folder for file in map(read_weight_file, files) if file is not None}
    named = [name for name, value in index.items() if isinstance(value, list) and value and value[0]]
    return sorted(
        name
        for name in named
        if name not in folders or (f"{name}/config.json" in files and name not in weighty)
    )


def _is_small_file(name: str) -> bool:
    path = PurePosixPath(name)
    if len(path.parts) == 1:
        return name in _COMMON_FILES or name in _TOKENIZER_FILES
    # A sentence-transformers module keeps its settings in a numbered folder (1_Pooling/config.json).
    return len(path.parts) == 2 and path.name == "config.json" and path.parts[0][:1].isdecimal()


def _at_home(name: str) -> bool:
    return PurePosixPath(name).parts[0] not in _FOREIGN_FOLDERS


def _onnx_weights(files: Collection[str]) -> set[str]:
    graph = graph_of(files)
    if graph is None:
        return set()
    # Tensors over 2 GB lie beside the graph, in one or more files named after it.
    beside = (f"{graph}_data", f"{graph}.data")
    return {graph} | {name for name in files if name.startswith(beside)}


def detect_task(config: JsonObject | None, files: Collection[str]) -> str:
    """The task of a model, from its `config.json` and the files it has."""
    architectures = config.get("architectures") if config else None
    for name in architectures if isinstance(architectures, list) else []:
        for ending, task in _TASKS_BY_HEAD:
            if isinstance(name, str) and name.endswith(ending):
                return task
    if "modules.json" in files or "1_Pooling/config.json" in files:
        return FEATURE_EXTRACTION
    return TENSORS
