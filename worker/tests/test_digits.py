"""The sample model reaches what its card claims: by the engine on every held-out digit, over HTTP on some."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from worker_harness.running import DIGITS, WorkerProcess

from moorage_worker.engines.base import Engine
from moorage_worker.engines.catalog import load_engine
from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.json_types import Json
from moorage_worker.model_folder import ModelFolder

pytest.importorskip("sklearn", reason="scikit-learn carries the digits")
yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    """The training script, as a module: it says which digits were held out."""
    path = DIGITS.parents[1] / "scripts" / "train_digits.py"
    spec = importlib.util.spec_from_file_location("train_digits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_digits"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine() -> Engine:
    loaded = load_engine("onnx", ModelFolder(DIGITS), LoadOptions(task=None, threads=1))
    loaded.warm_up()
    return loaded


def claimed_accuracy(folder: Path) -> float:
    front_matter = (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    [result] = yaml.safe_load(front_matter)["model-index"][0]["results"]
    return float(result["metrics"][0]["value"])


def png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_the_card_claims_what_the_model_reaches_on_every_held_out_digit(
    trainer: ModuleType, engine: Engine
) -> None:
    _, held_out = trainer.split()
    answers = []
    for start in range(0, len(held_out.labels), 50):
        batch: list[Json] = [png(image) for image in held_out.images[start : start + 50]]
        rankings: Any = engine.infer(batch, {"top_k": 1})  # the outputs' form is the task's
        answers += [ranking[0]["label"] for ranking in rankings]
    reached = np.mean([int(answer) == label for answer, label in zip(answers, held_out.labels, strict=True)])
    assert round(float(reached), 4) == claimed_accuracy(DIGITS)
    assert reached >= 0.97


def test_held_out_digits_over_http_agree_with_the_network_in_numpy(
    trainer: ModuleType, digits: WorkerProcess
) -> None:
    _, held_out = trainer.split()
    logits = trainer.logits(read_safetensors(DIGITS / "model.safetensors"), held_out.images[:12])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    for image, row in zip(held_out.images[:12], expected, strict=True):
        ranking = digits.infer({"image": png(image)})
        scores = {answer["label"]: answer["score"] for answer in ranking}
        assert [scores[str(i)] for i in range(10)] == pytest.approx(row.tolist(), abs=1e-5)
        assert [answer["score"] for answer in ranking] == sorted(scores.values(), reverse=True)


def test_the_sample_images_show_what_their_names_say(digits: WorkerProcess) -> None:
    samples = sorted((DIGITS / "samples").glob("*.png"))
    assert samples
    for sample in samples:
        [best] = digits.infer(base64.b64encode(sample.read_bytes()).decode(), top_k=1)
        assert best["label"] == sample.stem


def test_training_again_gives_the_committed_model(trainer: ModuleType, tmp_path: Path) -> None:
    reached = trainer.write(tmp_path)
    committed = {p.relative_to(DIGITS) for p in DIGITS.rglob("*") if p.is_file() and p.suffix != ".png"}
    assert committed == {
        p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".png"
    }
    # Another processor may round otherwise, so the weights are compared by what they reach.
    assert reached == pytest.approx(claimed_accuracy(DIGITS), abs=0.01)
    for name in ("config.json", "preprocessor_config.json"):
        assert (tmp_path / name).read_bytes() == (DIGITS / name).read_bytes()


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__")
    weights = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32"
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        weights[name] = np.frombuffer(raw[start:end], dtype="<f4").reshape(entry["shape"])
    assert max(entry["data_offsets"][1] for entry in header.values()) + 8 + length == len(raw)
    return weights
