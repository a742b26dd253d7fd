"""A picture from one command, on an account that the key is; nothing doubled, nothing left."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import DIGITS, Installation

from .conftest import INSTALLATION, PAINTER, Harbour, Script

MODEL = "moorage/digits"
SAMPLE = DIGITS / "samples" / "4.png"
PICTURE = SAMPLE.read_bytes()
# The simulated worker answers what it is asked.
MEDIA = {"content_type": "image/png", "base64": base64.b64encode(PICTURE).decode()}


@pytest.fixture
def deploy(access: dict[str, str], tmp_path: Path) -> Script:
    return Script("deploy_and_infer.py", access, tmp_path)


def painting(harbour: Harbour, folder: Path) -> Script:
    folder.mkdir()
    return Script("deploy_and_infer.py", {"MOORAGE_KEY": harbour.runpod.key}, folder)


def test_an_answer_comes_and_nothing_is_left(
    installation: Installation, deploy: Script, tmp_path: Path
) -> None:
    output = tmp_path / "answer.json"
    asked = ("--input", f"@{SAMPLE}", "--parameters", '{"top_k": 1}', "--output", str(output))
    ended = deploy(installation.url, MODEL, *asked)
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert [o["label"] for o in answer["outputs"]] == ["4"]
    assert json.loads(output.read_text()) == answer
    told = [line.split()[1] for line in ended.err.splitlines() if re.match(r"\d\d:\d\d:", line)]
    assert told[:5] == ["validating", "selecting_gpu", "creating_endpoint", "loading_model", "ready"]
    assert told[-1] == "deleted"
    assert len(told) == len(set(told)), "an event was told twice"
    assert installation.replicas() == []
    assert installation.json("ls") == []


def test_kept_it_is_used_again_by_its_idempotency_key(installation: Installation, deploy: Script) -> None:
    asked = (installation.url, MODEL, "--input", f"@{SAMPLE}", "--idempotency-key", "kept-1", "--keep")
    first, second = deploy(*asked), deploy(*asked)
    assert (first.code, second.code) == (0, 0), second.err
    (there,) = installation.json("ls")
    command = re.search(r"^  (curl .* -X DELETE .*)$", second.err, flags=re.MULTILINE)
    assert command is not None
    assert there["deployment_id"] in command[1]
    last = deploy(*asked[:-1])
    assert last.code == 0, last.err
    assert installation.json("ls") == []
    used_up = deploy(*asked)
    assert used_up.code == 1
    assert "give another one" in used_up.err
    assert installation.json("ls") == []


def test_a_picture_comes_from_runpod_with_its_own_key(harbour: Harbour, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    ended = painting(harbour, folder)(
        harbour.url,
        PAINTER,
        "--provider",
        "runpod",
        "--input",
        json.dumps([MEDIA, MEDIA]),
        "--name",
        "harbour",
    )
    assert ended.code == 0, ended.err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        "harbour.png": PICTURE,
        "harbour-2.png": PICTURE,
    }
    shown = json.loads(ended.out)["outputs"]
    assert shown[0] == {"content_type": "image/png", "file": "harbour.png"}
    assert harbour.runpod.names() == set()


def test_the_smoke_test_passes_on_runpod_too(harbour: Harbour) -> None:
    smoke = Script("smoke.py", {"MOORAGE_KEY": harbour.runpod.key})
    ended = smoke(harbour.url, "--model", PAINTER, "--provider", "runpod", "--workers-max", "2")
    assert ended.code == 0, ended.err
    assert "nothing left: ok" in ended.err
    assert harbour.runpod.names() == set()
    (create,) = [r for r in harbour.runpod.requests("POST") if r["path"] == "/v2/serverless"]
    assert create["body"]["workers"]["max"] == 2


def test_interrupted_before_the_answer_there_is_none_left(harbour: Harbour, tmp_path: Path) -> None:
    harbour.runpod.faults(never_ready=["*"])
    script = painting(harbour, tmp_path / "pictures")
    with script.begin(harbour.url, PAINTER, "--input", "a harbour") as process:
        harbour.runpod.until_asked("POST")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Nothing of it is left." in err
    assert harbour.runpod.names() == set()


def test_interrupted_twice_it_says_that_the_service_goes_on(harbour: Harbour, tmp_path: Path) -> None:
    harbour.runpod.faults(
        never_ready=["*"],
        routes=[{"route": "DELETE /v2/serverless/{id}", "kind": "slow", "seconds": 3}],
    )
    script = painting(harbour, tmp_path / "pictures")
    with script.begin(harbour.url, PAINTER, "--input", "a harbour") as process:
        harbour.runpod.until_asked("POST")
        process.send_signal(signal.SIGINT)
        harbour.runpod.until_asked("DELETE")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "is being deleted, which the service does by itself" in err
    command = re.search(r"^  (curl .*)$", err, flags=re.MULTILINE)
    assert command is not None
    shell = ["bash", "-euc", f"{command[1]} -sf"]
    told = subprocess.run(shell, env=dict(script.environ), check=True, timeout=20, capture_output=True)
    assert json.loads(told.stdout)["status"] in ("deleting", "deleted")


def test_what_a_service_left_that_is_no_more_is_cleaned_up(harbour: Harbour, tmp_path: Path) -> None:
    """The names and marks that the clean-up looks for are those that the service gives."""
    asked = ("--input", "a harbour", "--keep")
    assert painting(harbour, tmp_path / "pictures")(harbour.url, PAINTER, *asked).code == 0
    harbour.service.kill()
    assert len(harbour.runpod.names()) == 1
    cleanup = Script("cleanup_endpoints.py", {"RUNPOD_API_KEY": harbour.runpod.key})
    at = ("--api-url", harbour.runpod.api_url)
    assert cleanup(*at, "--installation", "inst-another").code == 0
    assert cleanup(*at, "--installation", INSTALLATION).code == 3
    assert cleanup(*at, "--installation", INSTALLATION, "--delete").code == 0
    assert harbour.runpod.names() == set()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--input", "x"], 2, "MODEL"),
        ([MODEL], 2, "--input"),
        ([MODEL, "--input", "{"], 2, "not JSON"),
        ([MODEL, "--input", "x", "--parameters", "[]"], 2, "JSON object"),
        ([MODEL, "--input", "x", "--output", "/dev/null/picture.png"], 2, "no folder"),
        (["acme/nothing", "--input", "x"], 1, "model_not_found"),
        ([MODEL, "--input", "x", "--set", "min_replicas=0"], 1, "min_replicas"),
        ([MODEL, "--input", "x", "--provider", "moon"], 1, "provider"),
    ],
)
def test_what_goes_wrong_has_its_words_and_its_code(
    installation: Installation, deploy: Script, arguments: list[str], code: int, words: str
) -> None:
    ended = deploy(installation.url, *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert installation.json("ls") == []
