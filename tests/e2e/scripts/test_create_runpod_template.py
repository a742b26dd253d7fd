"""A template is made once, found again by its name, and changed where it differs."""

from __future__ import annotations

import json
import signal

import pytest

from .conftest import RunPodProcess, Script

IMAGE = "registry.example.com/worker-diffusers:0.1.0"
BASIC = ("--name", "moorage-worker", "--image", IMAGE)


@pytest.fixture
def create(runpod: RunPodProcess) -> Script:
    return Script("create_runpod_template.py", {"RUNPOD_API_KEY": runpod.key})


def templates(runpod: RunPodProcess) -> list[dict[str, object]]:
    found: list[dict[str, object]] = runpod.ask("GET", "/v2/templates")["templates"]
    return found


def test_it_is_made_and_serves_an_endpoint(runpod: RunPodProcess, create: Script) -> None:
    ended = create("--api-url", runpod.api_url, *BASIC, "--disk", "80", "--env", "A=1", "--cuda", "12.8")
    assert ended.code == 0, ended.err
    (template,) = templates(runpod)
    assert ended.out == f"{template['id']}\n"
    assert f"MOORAGE_RUNPOD_TEMPLATE_ID={template['id']}" in ended.err
    told = {name: template[name] for name in ("name", "image", "disk", "env", "serverless", "public")}
    assert told == {
        "name": "moorage-worker",
        "image": IMAGE,
        "disk": 80,
        "env": {"A": "1"},
        "serverless": True,
        "public": False,
    }
    assert (template["startSsh"], template["startJupyter"]) == (False, False)
    assert template["allowedCudaVersions"] == ["12.8"]
    body = {
        "name": "from-it",
        "type": "QUEUE",
        "templateId": template["id"],
        "gpu": {"pools": ["AMPERE_24"], "count": 1},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
    }
    assert runpod.ask("POST", "/v2/serverless", body)["env"] == {"A": "1"}


def test_run_again_it_changes_what_differs_and_nothing_else(runpod: RunPodProcess, create: Script) -> None:
    at = ("--api-url", runpod.api_url)
    first = create(*at, *BASIC, "--disk", "80", "--env", "A=1", "--env", "B=2")
    same = create(*at, *BASIC, "--disk", "80", "--env", "A=1", "--env", "B=2")
    assert (same.code, same.out) == (0, first.out)
    assert "up to date" in same.err
    assert runpod.requests("PATCH") == []
    changed = create(*at, "--name", "moorage-worker", "--image", f"{IMAGE}-2", "--env", "A=3")
    assert (changed.code, changed.out) == (0, first.out)
    assert "Changed image, env" in changed.err
    (patch,) = runpod.requests("PATCH")
    assert patch["body"].keys() == {"image", "env"}
    (template,) = templates(runpod)
    assert (template["image"], template["env"], template["disk"]) == (f"{IMAGE}-2", {"A": "3"}, 80)


def test_a_dry_run_shows_what_would_be_and_no_value(runpod: RunPodProcess, create: Script) -> None:
    asked = (*BASIC, "--dry-run", "--env", "HF_TOKEN", "--api-url", runpod.api_url)
    ended = create(*asked, HF_TOKEN="hf_secret_of_the_test")
    assert (ended.code, ended.out) == (0, "")
    shown = ended.err[ended.err.index("Would create ") + len("Would create ") :]
    assert json.loads(shown)["env"] == {"HF_TOKEN": "…"}
    assert templates(runpod) == []


@pytest.mark.parametrize("kind", ["lost_answer", "truncated"])
def test_a_lost_answer_makes_no_second_one(runpod: RunPodProcess, create: Script, kind: str) -> None:
    runpod.faults(routes=[{"route": "POST /v2/templates", "kind": kind}])
    ended = create("--api-url", runpod.api_url, *BASIC)
    assert ended.code == 0, ended.err
    (template,) = templates(runpod)
    assert ended.out == f"{template['id']}\n"


def test_a_lost_request_is_told(runpod: RunPodProcess, create: Script) -> None:
    runpod.faults(routes=[{"route": "POST /v2/templates", "kind": "lost_request"}])
    ended = create("--api-url", runpod.api_url, *BASIC)
    assert (ended.code, ended.out) == (5, "")
    assert templates(runpod) == []


def test_two_of_one_name_and_one_for_pods_are_refused(runpod: RunPodProcess, create: Script) -> None:
    for name, serverless in (("twice", True), ("twice", True), ("pods", False)):
        runpod.ask("POST", "/v2/templates", {"name": name, "image": IMAGE, "serverless": serverless})
    twice = create("--api-url", runpod.api_url, "--name", "twice", "--image", IMAGE)
    assert twice.code == 1
    assert all(str(t["id"]) in twice.err for t in templates(runpod) if t["name"] == "twice")
    pods = create("--api-url", runpod.api_url, "--name", "pods", "--image", IMAGE)
    assert pods.code == 1
    assert "for pods" in pods.err


def test_ctrl_c_says_what_may_be_left(runpod: RunPodProcess, create: Script) -> None:
    runpod.faults(routes=[{"route": "POST /v2/templates", "kind": "slow", "seconds": 30}])
    with create.begin("--api-url", runpod.api_url, *BASIC) as process:
        runpod.until_asked("POST")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "moorage-worker may be there" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--image", IMAGE), 2, "--name"),
        (("--name", "x", "--image", "two words"), 2, "without spaces"),
        ((*BASIC, "--env", "NOT_THERE"), 2, "NOT_THERE is not in the environment"),
        ((*BASIC, "--env", "RUNPOD_POD_ID=1"), 2, "RUNPOD_POD_ID is set by the platform"),
        ((*BASIC, "--env", "A-B=1"), 2, "NAME=VALUE"),
        ((*BASIC, "--cuda", "twelve"), 2, "such as 12.8"),
        ((*BASIC, "--disk", "0"), 2, "at least 1"),
        ((*BASIC, "--key-file", "/dev/null"), 2, "is empty"),
    ],
)
def test_what_goes_wrong_has_its_words_and_its_code(
    runpod: RunPodProcess, create: Script, options: tuple[str, ...], code: int, words: str
) -> None:
    ended = create("--api-url", runpod.api_url, *options)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert templates(runpod) == []


def test_the_account_s_key_does_not_go_into_a_template(runpod: RunPodProcess, create: Script) -> None:
    ended = create("--api-url", runpod.api_url, *BASIC, "--env", "TOKEN", TOKEN=runpod.key)
    assert ended.code == 2
    assert "must not reach a worker" in ended.err
    assert templates(runpod) == []
