"""Trains the sample model and writes it as a Hub repository.

The sample has to be a real model that everyone can make again: scikit-learn carries the data, the seed is
fixed, and the accuracy on the model card is the one measured here on digits that training never saw.

    python scripts/train_digits.py [folder]        default: examples/digits
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 20
HIDDEN_UNITS = 64
HELD_OUT_SHARE = 0.25
EDGE = 8
CLASSES = 10
MEAN, DEVIATION = 0.5, 0.5
SAMPLES = 2
OPSET, IR_VERSION = 17, 8

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Digits:
    """Images as bytes [N,8,8] from 0 to 255, as a PNG file holds them, and what each shows."""

    images: Bytes
    labels: Integers


def split() -> tuple[Digits, Digits]:
    """Training and held-out digits, the same on every machine, with each digit's share kept."""
    data = load_digits()
    images = np.rint(data.images * 255 / 16).astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, data.target, test_size=HELD_OUT_SHARE, random_state=SEED, stratify=data.target
    )
    return Digits(train_x, train_y), Digits(test_x, test_y)


def pixel_values(images: Bytes) -> Floats:
    """What the preprocessor config makes of images: float32 [N,1,8,8] from -1 to 1."""
    scaled = images.astype(np.float32) / np.float32(255)
    return ((scaled - np.float32(MEAN)) / np.float32(DEVIATION))[:, None]


def train(digits: Digits) -> dict[str, Floats]:
    """Train the network; its weights by name, each matrix as [outputs, inputs]."""
    network = MLPClassifier(
        hidden_layer_sizes=(HIDDEN_UNITS,),
        alpha=1e-2,
        learning_rate_init=3e-3,
        max_iter=300,
        random_state=SEED,
    )
    network.fit(pixel_values(digits.images).reshape(len(digits.images), -1).astype(np.float64), digits.labels)
    (hidden, classifier), (hidden_bias, classifier_bias) = network.coefs_, network.intercepts_
    weights = {
        "hidden.weight": hidden.T,
        "hidden.bias": hidden_bias,
        "classifier.weight": classifier.T,
        "classifier.bias": classifier_bias,
    }
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}


def logits(weights: dict[str, Floats], images: Bytes) -> Floats:
    """The network in numpy: what the graph must compute."""
    flat = pixel_values(images).reshape(len(images), -1)
    hidden = np.maximum(flat @ weights["hidden.weight"].T + weights["hidden.bias"], 0)
    sums: Floats = hidden @ weights["classifier.weight"].T + weights["classifier.bias"]
    return sums


def accuracy(weights: dict[str, Floats], digits: Digits) -> float:
    return float((logits(weights, digits.images).argmax(axis=1) == digits.labels).mean())


def graph(weights: dict[str, Floats]) -> onnx.ModelProto:
    """`pixel_values` [N,1,8,8] → `logits` [N,10]."""
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["pixels"], axis=1),
        helper.make_node("Gemm", ["pixels", "hidden.weight", "hidden.bias"], ["sums"], transB=1),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "classifier.weight", "classifier.bias"], ["logits"], transB=1),
    ]
    shapes = {"pixel_values": ["batch_size", 1, EDGE, EDGE], "logits": ["batch_size", CLASSES]}
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in shapes.items()}
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    body = helper.make_graph(nodes, "digits", [ends["pixel_values"]], [ends["logits"]], initializers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def safetensors(weights: dict[str, Floats]) -> bytes:
    """The safetensors format: header length, JSON header padded to 8 bytes, then the tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, value in weights.items():
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return (
        struct.pack("<Q", len(text))
        + text
        + b"".join(value.astype("<f4").tobytes() for value in weights.values())
    )


def config() -> dict[str, object]:
    return {
        "architectures": ["DigitsMlpForImageClassification"],
        "model_type": "digits-mlp",
        "num_channels": 1,
        "image_size": EDGE,
        "hidden_size": HIDDEN_UNITS,
        "hidden_act": "relu",
        "id2label": {str(digit): str(digit) for digit in range(CLASSES)},
        "label2id": {str(digit): digit for digit in range(CLASSES)},
        "problem_type": "single_label_classification",
        "dtype": "float32",
    }


def preprocessor_config() -> dict[str, object]:
    return {
        "do_resize": True,
        "size": {"height": EDGE, "width": EDGE},
        "resample": int(Image.Resampling.BILINEAR),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN],
        "image_std": [DEVIATION],
    }


CARD = """---
license: mit
library_name: onnx
pipeline_tag: image-classification
tags:
- onnx
- digits
metrics:
- accuracy
model-index:
- name: digits
  results:
  - task:
      type: image-classification
    dataset:
      name: Optical recognition of handwritten digits (scikit-learn)
      type: digits
      split: held-out
    metrics:
    - type: accuracy
      value: {accuracy:.4f}
---

# Handwritten digits

A small network ({parameters} parameters) that tells which digit an 8×8 grey image shows.
It is the sample model of Moorage: real, quick to train, and small enough to keep beside the code.

| | |
|---|---|
| input | `pixel_values`, float32 [N,1,8,8]: grey from 0 (paper) to 255 (ink), scaled to -1 … 1 |
| output | `logits`, float32 [N,10] |
| data | scikit-learn's handwritten digits: {train} to train, {held_out} held out |
| accuracy | **{accuracy:.4f}** on the held-out digits ({wrong} wrong) |

The weights are here twice: `onnx/model.onnx` to run, `model.safetensors` to read.
`samples/` holds held-out images, named by the digit that they show.

Ink is bright and paper is dark. Larger images are scaled down, but the network has only seen digits that fill
the frame, written by 13 people who are in both parts of the data; for other hands expect less. It is a
sample, not a reader of documents.

Made by `scripts/train_digits.py`, seed {seed}.
"""


def card(weights: dict[str, Floats], training: Digits, held_out: Digits) -> str:
    measured = accuracy(weights, held_out)
    return CARD.format(
        accuracy=measured,
        wrong=round((1 - measured) * len(held_out.labels)),
        parameters=sum(value.size for value in weights.values()),
        train=len(training.labels),
        held_out=len(held_out.labels),
        seed=SEED,
    )


def write(folder: Path) -> float:
    """Train, export, measure and write the repository; returns the held-out accuracy."""
    training, held_out = split()
    weights = train(training)
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    (folder / "samples").mkdir(exist_ok=True)
    onnx.save(graph(weights), folder / "onnx" / "model.onnx")
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    for name, value in (("config.json", config()), ("preprocessor_config.json", preprocessor_config())):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(weights, training, held_out), encoding="utf-8")
    for image, label in zip(held_out.images[:SAMPLES], held_out.labels[:SAMPLES], strict=True):
        Image.fromarray(image).save(folder / "samples" / f"{label}.png")
    return accuracy(weights, held_out)


def main() -> None:
    default = Path(__file__).resolve().parent.parent / "examples" / "digits"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    print(f"held-out accuracy {write(folder):.4f}, written to {folder}")


if __name__ == "__main__":
    main()
