"""Text tasks against a reference in numpy: tokenizer, padding, truncation, pooling and scores are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_harness import tiny_models
from worker_harness.running import StartWorker, WorkerProcess

from moorage_worker.engines.onnx.pooling import Pooling, read_pooling
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.loading import load_model
from moorage_worker.model_folder import ModelFolder
from moorage_worker.readiness import Readiness
from moorage_worker.settings import parse_settings

TEXTS = ["good cat", "the very very bad dog", "zebra", "the the the the the the the the good"]


@pytest.fixture(scope="module")
def classifier(start_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> WorkerProcess:
    return start_worker(tiny_models.text_classifier(tmp_path_factory.mktemp("classifier"))).ready()


@pytest.fixture(scope="module")
def embedder(start_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> WorkerProcess:
    folder = tmp_path_factory.mktemp("embedder")
    model = tiny_models.embedder(folder, pooling={"pooling_mode_mean_tokens": True}, normalize=True)
    return start_worker(model, "--model-id", "team/tiny").ready()


def reference_scores(text: str) -> dict[str, float]:
    logits = tiny_models.TABLE[tiny_models.ids(text)].sum(axis=0)
    powers = np.exp(logits - logits.max())
    return dict(zip(tiny_models.LABELS, (powers / powers.sum()).tolist(), strict=True))


def test_scores_are_those_of_the_reference_padded_or_not(classifier: WorkerProcess) -> None:
    together = classifier.infer(TEXTS)
    for text, ranking in zip(TEXTS, together, strict=True):
        assert {a["label"]: a["score"] for a in ranking} == pytest.approx(reference_scores(text), abs=1e-5)
        alone = classifier.infer({"text": text})
        assert {a["label"]: a["score"] for a in alone} == pytest.approx(reference_scores(text), abs=1e-5)
        assert alone == sorted(alone, key=lambda answer: -answer["score"])


def test_more_texts_than_one_chunk_come_back_in_order(classifier: WorkerProcess) -> None:
    texts = [TEXTS[i % len(TEXTS)] for i in range(70)]
    best = [ranking[0]["label"] for ranking in classifier.infer(texts, top_k=1)]
    expected = [max(scores, key=scores.__getitem__) for scores in map(reference_scores, texts)]
    assert best == expected


def test_other_score_functions(classifier: WorkerProcess) -> None:
    logits = tiny_models.TABLE[tiny_models.ids("good cat")].sum(axis=0)
    raw = {a["label"]: a["score"] for a in classifier.infer("good cat", function_to_apply="none")}
    assert [raw[label] for label in tiny_models.LABELS] == pytest.approx(logits.tolist(), abs=1e-5)
    sigmoid = {a["label"]: a["score"] for a in classifier.infer("good cat", function_to_apply="sigmoid")}
    assert [sigmoid[label] for label in tiny_models.LABELS] == pytest.approx(
        (1 / (1 + np.exp(-logits))).tolist()
    )


def test_the_answer_names_model_time_and_version(classifier: WorkerProcess) -> None:
    body = classifier.post("/infer", {"inputs": "good"}).json()
    assert set(body) == {"model_id", "outputs", "metadata"}
    assert body["metadata"]["model_version"] == "local"
    assert body["metadata"]["inference_time_ms"] > 0


def reference_vector(text: str) -> np.ndarray:
    mean: np.ndarray = tiny_models.TABLE[tiny_models.ids(text)].mean(axis=0)
    return mean


def test_vectors_are_the_mean_of_real_tokens_scaled_to_one(embedder: WorkerProcess) -> None:
    vectors = np.array(embedder.infer(TEXTS))
    expected = np.array([reference_vector(text) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert vectors == pytest.approx(expected, abs=1e-5)
    assert np.array(embedder.infer(TEXTS[1])) == pytest.approx(expected[1:2], abs=1e-5)


def test_the_caller_may_ask_for_vectors_not_scaled(embedder: WorkerProcess) -> None:
    [vector] = embedder.infer("the very bad", normalize=False)
    assert vector == pytest.approx(reference_vector("the very bad").tolist(), abs=1e-5)


def test_a_name_with_a_slash_works_on_every_route(embedder: WorkerProcess) -> None:
    assert embedder.get("/v2/models/team/tiny/ready").json() == {"name": "team/tiny", "ready": True}
    assert embedder.get("/v2/models/team/tiny").json()["inputs"][0]["name"] == "input_ids"
    assert embedder.get("/metadata").json()["task"] == "feature-extraction"


@pytest.mark.parametrize(
    ("inputs", "field", "rule"),
    [
        ("", "inputs", "empty"),
        ([], "inputs", "size"),
        (["a"] * 1025, "inputs", "size"),
        (["good", 3], "inputs[1]", "type"),
        ({"text": None}, "inputs.text", "type"),
        ({"words": "good"}, "inputs.words", "unknown"),
        ({}, "inputs.text", "required"),
        (5, "inputs", "type"),
    ],
)
def test_wrong_texts_are_refused_by_field_and_rule(
    embedder: WorkerProcess, inputs: Json, field: str, rule: str
) -> None:
    error = embedder.refused(inputs)
    assert (error["field"], error["rule"]) == (field, rule)


# One text of two tokens and one padding token, and one of three tokens.
TOKENS = np.array([[[1, -2], [3, 8], [99, 99]], [[1, 1], [2, 2], [6, 3]]], dtype=np.float32)
MASK = np.array([[1, 1, 0], [1, 1, 1]])
POOLED = {
    "cls": [[1, -2], [1, 1]],
    "max": [[3, 8], [6, 3]],
    "mean": [[2, 3], [3, 2]],
    "mean_sqrt_len_tokens": [[4 / 2**0.5, 6 / 2**0.5], [9 / 3**0.5, 6 / 3**0.5]],
    "lasttoken": [[3, 8], [6, 3]],
}


@pytest.mark.parametrize("mode", POOLED)
def test_each_pooling_mode_skips_padding(mode: str) -> None:
    assert Pooling((mode,), normalize=False).pool(TOKENS, MASK) == pytest.approx(np.array(POOLED[mode]))


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode": "max"}, ("max",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
    ],
)
def test_pooling_settings_old_and_new(tmp_path: Path, settings: JsonObject, modes: Any) -> None:
    (tmp_path / "1_Pooling").mkdir()
    tiny_models.write_json(tmp_path / "1_Pooling", config=settings)
    assert read_pooling(ModelFolder(tmp_path)) == Pooling(modes, normalize=False)


def test_joined_modes_lie_side_by_side() -> None:
    joined = Pooling(("cls", "mean"), normalize=False).pool(TOKENS, MASK)
    assert joined.tolist() == [[1, -2, 2, 3], [1, 1, 3, 2]]


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"modules": [{"type": "a.Dense", "path": "2_Dense"}]}, "Dense"),
        ({"modules": {"type": "a.Pooling"}}, "list"),
        ({"config_sentence_transformers": {"default_prompt_name": "query"}}, "prompt"),
    ],
)
def test_what_the_engine_does_not_do_is_refused_at_load(
    tmp_path: Path, files: dict[str, Any], cause: str
) -> None:
    tiny_models.write_json(tmp_path, **files)
    with pytest.raises(LoadFailed, match=cause):
        read_pooling(ModelFolder(tmp_path))


def test_labels_that_do_not_match_the_graph_are_refused_at_load(tmp_path: Path) -> None:
    model = tiny_models.text_classifier(tmp_path, id2label={"0": "no", "1": "yes"})
    with pytest.raises(LoadFailed, match="names 2 labels in id2label, the model has 3 outputs"):
        load_model(parse_settings(["--model", str(model)], {}), Readiness())
