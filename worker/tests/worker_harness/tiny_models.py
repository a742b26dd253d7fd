"""Models small enough to check by hand, in the layout of a Hub repository, tokenizer and graph real."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = ["[PAD]", "[UNK]", "good", "bad", "cat", "dog", "the", "very"]
PAD = 0
LABELS = ["negative", "positive", "neutral"]
WINDOW = 6
# The padding row is huge, so that one padding token that is counted shows in every result.
TABLE = np.random.default_rng(7).normal(size=(len(WORDS), 3)).astype(np.float32)
TABLE[PAD] = 1000.0

Ends = Mapping[str, tuple[int, Sequence[int | str]]]  # by name: element type and shape


def save_graph(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Ends,
    outputs: Ends,
    constants: Mapping[str, NDArray[np.generic]] | None = None,
    name: str = "onnx/model.onnx",
) -> Path:
    """Write a checked graph to `folder`; inputs and outputs map a name to element type and shape."""
    ends = [
        [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(value, key) for key, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "tiny", *ends, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return folder


def write_json(folder: Path, **files: object) -> None:
    """Write `config={...}` to `config.json` and so on."""
    for stem, value in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(value), encoding="utf-8")


def ids(text: str) -> list[int]:
    """What the tiny tokenizer makes of a text, by other means: words apart by spaces, cut at the window."""
    return [WORDS.index(word) if word in WORDS else 1 for word in text.split()][:WINDOW]


def _save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder, tokenizer_config={"pad_token": "[PAD]", "model_max_length": WINDOW})


_TOKENS = {
    "input_ids": (TensorProto.INT64, ["batch", "tokens"]),
    "attention_mask": (TensorProto.INT64, ["batch", "tokens"]),
}
_LOOK_UP = helper.make_node("Gather", ["table", "input_ids"], ["vectors"], axis=0)


def text_classifier(folder: Path, **config: object) -> Path:
    """Logits are the sum of the rows of TABLE for the words of a text."""
    nodes = [
        _LOOK_UP,
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "tokens_axis"], ["logits"], keepdims=0),
    ]
    constants = {"table": TABLE, "last": np.array([2]), "tokens_axis": np.array([1])}
    save_graph(folder, nodes, _TOKENS, {"logits": (TensorProto.FLOAT, ["batch", 3])}, constants)
    _save_tokenizer(folder)
    labels = {str(i): label for i, label in enumerate(LABELS)}
    write_json(
        folder, config={"architectures": ["TinyForSequenceClassification"], "id2label": labels, **config}
    )
    return folder


def embedder(folder: Path, *, pooling: Mapping[str, object], normalize: bool) -> Path:
    """Token vectors are the rows of TABLE; how they are pooled is up to the worker."""
    nodes = [_LOOK_UP, helper.make_node("Identity", ["vectors"], ["last_hidden_state"])]
    hidden: Ends = {"last_hidden_state": (TensorProto.FLOAT, ["batch", "tokens", 3])}
    save_graph(folder, nodes, _TOKENS, hidden, {"table": TABLE}, name="model.onnx")
    _save_tokenizer(folder)
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling", config=pooling)
    kinds = [
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        *([("Normalize", "2_Normalize")] if normalize else []),
    ]
    modules = [{"idx": i, "path": path, "type": f"a.models.{kind}"} for i, (kind, path) in enumerate(kinds)]
    write_json(folder, config={"architectures": ["TinyModel"]}, modules=modules)
    return folder


def adder(folder: Path) -> Path:
    """`sum` = `left` + `right` for float32 [N,2], and `words` put out as they came in."""
    nodes = [
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Identity", ["words"], ["same_words"]),
    ]
    inputs: Ends = {
        "left": (TensorProto.FLOAT, ["N", 2]),
        "right": (TensorProto.FLOAT, ["N", 2]),
        "words": (TensorProto.STRING, ["M"]),
    }
    outputs: Ends = {"sum": (TensorProto.FLOAT, ["N", 2]), "same_words": (TensorProto.STRING, ["M"])}
    return save_graph(folder, nodes, inputs, outputs)


def picker(folder: Path) -> Path:
    """`value` = the `index`-th of three numbers; the engine fails on an index that is not there."""
    nodes = [helper.make_node("Gather", ["numbers", "index"], ["value"])]
    inputs: Ends = {"index": (TensorProto.INT64, ["N"])}
    outputs: Ends = {"value": (TensorProto.FLOAT, ["N"])}
    return save_graph(folder, nodes, inputs, outputs, {"numbers": np.array([1, 2, 3], dtype=np.float32)})


def slow(folder: Path) -> Path:
    """Takes as long as the caller says: multiplies a matrix `rounds` times. About 1 s for 1,000 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "matrix"], ["after"]),
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [512, 512]),
        ],
        [
            helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [512, 512]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["rounds", "", "matrix"], ["result"], body=body),
        helper.make_node("ReduceMax", ["result"], ["largest"], keepdims=0),
    ]
    inputs: Ends = {"rounds": (TensorProto.INT64, [])}
    outputs: Ends = {"largest": (TensorProto.FLOAT, [])}
    return save_graph(folder, nodes, inputs, outputs, {"matrix": np.eye(512, dtype=np.float32)})
