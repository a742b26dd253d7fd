"""The smoke test passes where the main job works, fails where it does not, and leaves nothing either way."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest

from tests.e2e.conftest import DIGITS, Installation

from .conftest import Script

MODEL = "moorage/digits"
SAMPLE = f"@{DIGITS / 'samples' / '4.png'}"
STEPS = ["health", "plan", "create", "wait", "infer", "delete", "nothing left"]


@pytest.fixture
def smoke(access: dict[str, str]) -> Script:
    return Script("smoke.py", access)


def test_every_step_is_told_with_its_time(installation: Installation, smoke: Script) -> None:
    ended = smoke(installation.url, "--model", MODEL, "--input", SAMPLE)
    assert ended.code == 0, ended.err
    done = re.findall(r"^  ([a-z ]+): ok in \d+\.\d\d s$", ended.err, flags=re.MULTILINE)
    assert done == STEPS
    for seen in ("managed, CPU", "loading_model", "moorage/digits answered", "it cost 0.0"):
        assert seen in ended.err
    assert ended.out.startswith(f"ok {installation.url} {MODEL} ")
    assert installation.replicas() == []
    assert installation.json("ls") == []


def test_the_key_may_be_an_option(installation: Installation, access: dict[str, str]) -> None:
    asked = ("--model", "acme/nothing", "--key", access["MOORAGE_KEY"])
    ended = Script("smoke.py")(installation.url, *asked)
    assert ended.code == 1
    assert "plan: FAILED" in ended.err
    assert "model_not_found" in ended.err


def test_a_step_that_fails_ends_it_and_the_deployment_is_deleted(
    installation: Installation, smoke: Script
) -> None:
    ended = smoke(installation.url, "--model", MODEL, "--input", "no image")
    assert ended.code == 1
    assert "infer: FAILED" in ended.err
    assert "Nothing of it is left." in ended.err
    assert ended.out == ""
    assert installation.replicas() == []
    assert installation.json("ls") == []


def test_a_deadline_that_passes_deletes_it_too(installation: Installation, smoke: Script) -> None:
    ended = smoke(installation.url, "--model", MODEL, "--input", SAMPLE, "--timeout", "0.01")
    assert ended.code == 1
    assert "longer than 0.01 s" in ended.err
    assert installation.replicas() == []
    assert installation.json("ls") == []


def until(process: subprocess.Popen[str], words: str) -> str:
    """What was said on standard error up to these words."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", ["— create", "loading_model"])
def test_ctrl_c_deletes_it(
    installation: Installation, smoke: Script, words: str, number: signal.Signals
) -> None:
    with smoke.begin(installation.url, "--model", MODEL, "--input", SAMPLE) as process:
        until(process, words)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    if words == "loading_model":  # at "create" it may have been too early for anything to delete
        assert "Nothing of it is left." in err
    assert "Interrupted." in err
    assert "Traceback" not in err
    assert installation.replicas() == []
    assert installation.json("ls") == []


def test_a_second_ctrl_c_says_what_is_left_and_how_to_remove_it(
    installation: Installation, smoke: Script
) -> None:
    with smoke.begin(installation.url, "--model", MODEL, "--input", SAMPLE) as process:
        until(process, "loading_model")
        process.send_signal(signal.SIGINT)
        until(process, "Deleting")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    command = re.search(r"^  (curl .*)$", err, flags=re.MULTILINE)
    assert command is not None or "Nothing of it is left." in err  # it may have been quicker
    if command is not None:
        shell = ["bash", "-euc", f"{command[1]} -sf"]
        subprocess.run(shell, env={**installation.environ, **smoke.environ}, check=True, timeout=20)
    events = installation.moorage("events", "-f", _newest(installation))
    assert "Nothing is left" in events.stdout
    assert installation.replicas() == []


def _newest(installation: Installation) -> str:
    found: list[dict[str, str]] = json.loads(installation.moorage("ls", "--all", "--json").stdout)
    return found[0]["deployment_id"]


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "words"),
    [
        (["http://127.0.0.1:1"], {}, 5, "does not answer"),
        (["127.0.0.1:1"], {}, 2, "http://"),
        ([], {}, 2, "BASE_URL"),
        (["http://user:secret@127.0.0.1:1"], {}, 2, "no user"),
        (["http://127.0.0.1:1", "--input", "@/dev/null/none"], {}, 2, "cannot be read"),
        (["http://127.0.0.1:1", "--set", "spot"], {}, 2, "NAME=VALUE"),
        (["http://127.0.0.1:1"], {"MOORAGE_KEY": "two words"}, 2, "characters that no key has"),
    ],
)
def test_what_cannot_be_meant_has_its_words_and_its_code(
    arguments: list[str], environ: dict[str, str], code: int, words: str
) -> None:
    ended = Script("smoke.py")(*arguments, **environ)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err


def test_a_wrong_key_is_told_apart(installation: Installation) -> None:
    ended = Script("smoke.py")(installation.url, "--model", MODEL, MOORAGE_KEY="mrg_wrong")
    assert ended.code == 4
    assert "health: ok" in ended.err
    assert "does not accept the key" in ended.err
