"""A service is stopped, its store copied, and the service started on the copy: it goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.cli.failures import ExitCode
from tests.e2e.conftest import CLI, DIGITS, Installation, processes_of, started

MODEL = "moorage/digits"
SAME = ("deployment_id", "name", "status", "hf_model_id", "created_at", "replicas", "ready_at")


@pytest.fixture
def data_dir(environ: dict[str, str]) -> Iterator[Path]:
    data_dir = Path(environ["MOORAGE_DATA_DIR"])
    yield data_dir
    for pid in processes_of(data_dir):  # whatever a failed test has left
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hub(environ: dict[str, str], data_dir: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "moorage.testing.hub", "--repo", f"{MODEL}={DIGITS}"]
    with started(command, environ, data_dir.parent / "hub.log") as told:
        environ["MOORAGE_HUB_URL"] = told["url"]
        yield


@contextmanager
def service(environ: Mapping[str, str], data_dir: Path, database: str) -> Iterator[Installation]:
    """As long as the context lasts. Its models run on."""
    settings = {**environ, "MOORAGE_DATABASE_URL": database}
    with started([*CLI, "serve", "--port", "0", "--json"], settings, data_dir.parent / "service.log") as told:
        yield Installation(told["url"], data_dir, {**settings, "MOORAGE_URL": told["url"]})


@pytest.mark.timeout(300)  # six processes start, which takes long on a crowded machine
@pytest.mark.usefixtures("hub")
def test_a_service_goes_on_on_a_copy_of_its_store(environ: dict[str, str], data_dir: Path) -> None:
    before, after = (f"sqlite:///{data_dir.parent / name / 'moorage.db'}" for name in ("before", "after"))
    with service(environ, data_dir, before) as first:
        assert first.at_once("deploy", MODEL, "--name", "kept").exit_code == ExitCode.OK
        key = first.json("keys", "create", "ci")["key"]
        known = first.json("get", "kept")
        events = first.at_once("events", "kept", "--json").stdout
        replicas = first.replicas()

    copied = first.moorage("store", "copy", before, after, "--json")
    assert copied.returncode == ExitCode.OK, copied.stderr
    rows = {each["collection"]: each["rows"] for each in json.loads(copied.stdout)["collections"]}
    assert rows["deployment"] == rows["user"] == 1
    assert rows["api_key"] == 2
    assert rows["event"] >= len(events.splitlines())
    Path(before.removeprefix("sqlite:///")).unlink()

    with service(environ, data_dir, after) as second:
        held = replace(second, environ={**second.environ, "MOORAGE_KEY": key})
        found = held.json("get", "kept")
        assert {name: found[name] for name in SAME} == {name: known[name] for name in SAME}
        assert held.at_once("events", "kept", "--json").stdout.startswith(events)
        sample = DIGITS / "samples" / "8.png"
        answer = held.json("infer", "kept", f"@{sample}", "--parameters", '{"top_k": 1}')
        assert answer["outputs"][0]["label"] == "8"
        assert second.replicas() == replicas, "the model was not started again"
        assert held.at_once("deploy", MODEL, "--name", "kept").exit_code == ExitCode.FAILED, "name is taken"
        assert held.at_once("delete", "kept").exit_code == ExitCode.OK
        assert second.replicas() == []
