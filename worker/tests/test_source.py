"""Models from the Hub, by the real client against a small Hub on loopback."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_harness.hub import COMMIT, Hub
from worker_harness.running import DIGITS, StartWorker, WorkerProcess

from moorage_worker import available_engines
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import JsonObject
from moorage_worker.model_layout import choose_engine, detect_task, files_needed
from moorage_worker.source import wanted_of

ALL_USABLE: dict[str, str | None] = {"onnx": None, "sentence-transformers": None}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """The sample model among files that nobody needs to download."""
    repository = tmp_path / "repository"
    shutil.copytree(DIGITS, repository)
    for name in ("onnx/model_int8.onnx", "pytorch_model.bin", "tf_model.h5"):
        (repository / name).write_bytes(b"x" * 1000)
    with Hub({"team/digits": repository}).serving() as serving:
        yield serving


@pytest.fixture
def start(start_worker: StartWorker, hub: Hub, tmp_path: Path) -> StartWorker:
    def start(model: str = "team/digits", *options: str) -> WorkerProcess:
        cache = str(tmp_path / "cache")
        return start_worker(model, "--cache-dir", cache, *options, env={"HF_ENDPOINT": hub.url})

    return start


def test_only_what_the_engine_reads_is_downloaded(hub: Hub, start: StartWorker) -> None:
    worker = start().ready()
    assert sorted(hub.sent) == ["config.json", "onnx/model.onnx", "preprocessor_config.json"]
    assert worker.get("/metadata").json()["revision"] == COMMIT
    assert worker.get("/metadata").json()["model_id"] == "team/digits"


def test_health_answers_and_ready_tells_the_stage_while_files_are_on_their_way(
    hub: Hub, start: StartWorker
) -> None:
    hub.let_files_through.clear()
    worker = start().listening()
    assert worker.get("/health").status_code == 200
    not_ready = worker.get("/ready")
    assert (not_ready.status_code, not_ready.json()) == (503, {"status": "loading", "stage": "downloading"})
    early = worker.post("/infer", {"inputs": "x"})
    assert (early.status_code, early.json()["code"]) == (503, "model_not_ready")
    assert "retry-after" in early.headers
    assert worker.get("/v2/health/live").status_code == 200
    assert worker.get("/v2/health/ready").status_code == 503
    hub.let_files_through.set()
    worker.ready()
    assert worker.get("/ready").status_code == 200


def test_sigterm_during_a_download_ends_at_once_and_the_next_start_completes_it(
    hub: Hub, start: StartWorker
) -> None:
    hub.let_files_through.clear()
    worker = start().listening()
    assert hub.file_asked.wait(30)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    hub.let_files_through.set()
    start().ready()


def test_a_half_download_is_never_served_and_is_taken_up_again(
    hub: Hub, start: StartWorker, tmp_path: Path
) -> None:
    hub.cut_after = {"onnx/model.onnx": 4000}
    worker = start()
    assert hub.file_cut.wait(30)
    # The client would try again by itself; the process is killed, as in a crash.
    worker.stop()
    whole = [path for path in (tmp_path / "cache").rglob("model.onnx") if path.stat().st_size]
    assert whole == []
    hub.cut_after = {}
    assert start().ready().get("/metadata").json()["revision"] == COMMIT


def test_a_restart_needs_no_hub(
    hub: Hub, start: StartWorker, start_worker: StartWorker, tmp_path: Path
) -> None:
    start().ready().stop()
    hub.sent.clear()
    # The default endpoint of these tests is a port on which nothing listens.
    worker = start_worker("team/digits", "--cache-dir", str(tmp_path / "cache")).ready()
    assert worker.get("/metadata").json()["revision"] == COMMIT
    assert hub.sent == []


def test_each_refusal_of_the_hub_has_its_own_cause(start: StartWorker) -> None:
    refused = {
        "gated/model is gated": start("gated/model"),
        "team/none is not on the Hub, or is private": start("team/none"),
        "team/digits has no revision v9": start("team/digits", "--revision", "v9"),
        "neither a folder nor a valid repository id": start("not a name"),
    }
    for cause, worker in refused.items():
        assert worker.exit_code() == 1
        assert cause in worker.lines[-1]


def test_an_unreachable_hub_with_nothing_cached_is_the_cause(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker("team/digits", "--cache-dir", str(tmp_path), "--hub-patience", "0")
    assert worker.exit_code() == 1
    assert "team/digits cannot be fetched from the Hub" in worker.lines[-1]


def test_a_hub_that_comes_back_is_waited_for(tmp_path: Path, start_worker: StartWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    cache = ("--cache-dir", str(tmp_path / "cache"))
    worker = start_worker("team/digits", *cache, env={"HF_ENDPOINT": f"http://127.0.0.1:{port}"})
    worker.wait_for_line("trying again in 1 s")
    with Hub({"team/digits": DIGITS}, port=port).serving():
        worker.ready()


MINI_LM = [
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "onnx/model.onnx",
    "onnx/model_O4.onnx",
    "onnx/model_qint8_avx512.onnx",
    "openvino/openvino_model.bin",
    "pytorch_model.bin",
    "rust_model.ot",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tf_model.h5",
    "tokenizer.json",
    "tokenizer_config.json",
    "train_script.py",
    "vocab.txt",
]
SMALL = [name for name in MINI_LM if name.endswith((".json", ".txt"))]


def test_each_engine_takes_one_set_of_weights() -> None:
    assert files_needed("onnx", MINI_LM) == sorted([*SMALL, "onnx/model.onnx"])
    assert files_needed("sentence-transformers", MINI_LM) == sorted([*SMALL, "model.safetensors"])


def test_large_graphs_bring_their_data_and_older_weights_are_pickled() -> None:
    large = ["model.onnx", "model.onnx_data", "model.onnx_data_1", "model_fp16.onnx", "model_fp16.onnx_data"]
    assert files_needed("onnx", large) == ["model.onnx", "model.onnx_data", "model.onnx_data_1"]
    old = ["pytorch_model.bin", "onnx/model.onnx", "2_Dense/config.json", "2_Dense/pytorch_model.bin"]
    assert files_needed("sentence-transformers", old) == sorted(set(old) - {"onnx/model.onnx"})


def test_a_variant_is_what_is_fetched_of_a_repository() -> None:
    sizes = {"config.json": 9, "model.safetensors": 800, "model.fp16.safetensors": 400}
    engines = {"transformers": None}
    assert wanted_of(sizes, "transformers", engines).sizes == {"config.json": 9, "model.safetensors": 800}
    half = wanted_of(sizes, "transformers", engines, "fp16")
    assert half.sizes == {"config.json": 9, "model.fp16.safetensors": 400}


def test_the_engine_follows_the_files_and_what_is_installed() -> None:
    assert choose_engine(MINI_LM, None, ALL_USABLE) == "onnx"
    assert choose_engine(MINI_LM, "sentence-transformers", ALL_USABLE) == "sentence-transformers"
    assert choose_engine(["modules.json"], None, ALL_USABLE) == "sentence-transformers"
    with pytest.raises(LoadFailed, match="pip install it"):
        choose_engine(["modules.json"], None, {**ALL_USABLE, "sentence-transformers": "pip install it"})


@pytest.mark.parametrize(
    ("config", "files", "task"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, ["modules.json"], "text-classification"),
        ({"architectures": ["ViTForImageClassification"]}, [], "image-classification"),
        ({"architectures": ["BertModel"]}, ["modules.json"], "feature-extraction"),
        ({}, ["1_Pooling/config.json"], "feature-extraction"),
        ({"architectures": "odd"}, [], "tensors"),
        (None, [], "tensors"),
    ],
)
def test_the_task_follows_the_config(config: JsonObject, files: dict[str, Any], task: str) -> None:
    assert detect_task(config, files) == task


def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_engines()["onnx"] is None
    monkeypatch.setattr("moorage_worker.engines.catalog.find_spec", lambda name: None)
    advice = available_engines()["sentence-transformers"]
    assert advice is not None
    assert "pip install 'moorage-worker[sentence-transformers]'" in advice
