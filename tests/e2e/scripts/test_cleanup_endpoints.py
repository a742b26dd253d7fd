"""What is Moorage's in a RunPod account is listed and removed, and nothing else is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .conftest import RunPodProcess, Script

OLD = "mrg-27k4m6q2x5y3zj7abcdefghijk-r1-a1"
NEW = "mrg-27k4m6q2x5y3zj7abcdefghijk-r2-a1"
FOREIGN = ("mrg-mine", "somebody-elses", "mrg-27k4m6q2x5y3zj7abcdefghijk-r1-a1-copy")


@pytest.fixture
def cleanup(runpod: RunPodProcess) -> Script:
    return Script("cleanup_endpoints.py", {"RUNPOD_API_KEY": runpod.key})


def url(runpod: RunPodProcess) -> tuple[str, str]:
    return ("--api-url", runpod.api_url)


def test_it_looks_first_and_removes_when_told(runpod: RunPodProcess, cleanup: Script) -> None:
    ids = [runpod.made(OLD, MOORAGE_INSTALLATION="inst-one"), runpod.made(NEW)]
    for name in FOREIGN:
        runpod.made(name)
    looked = cleanup(*url(runpod))
    assert looked.code == 3, looked.err
    rows = [line.split() for line in looked.out.splitlines()]
    assert rows[0][:2] == ["NAME", "ID"]
    assert [row[:2] for row in rows[1:]] == [[OLD, ids[0]], [NEW, ids[1]]]
    assert "inst-one" in rows[1]
    assert "2 found, nothing changed" in looked.err
    assert runpod.requests("DELETE") == []

    removed = cleanup(*url(runpod), "--delete")
    assert removed.code == 0, removed.err
    assert "2 removed." in removed.err
    assert runpod.names() == set(FOREIGN)
    again = cleanup(*url(runpod), "--delete")
    assert (again.code, again.out) == (0, "")


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        (("--name", "mrg-*-r2-a*"), {NEW}),
        (("--name", "somebody*"), set()),
        (("--installation", "inst-one"), {OLD}),
        (("--installation", "inst-one", "--name", "*-r2-*"), set()),
        (("--older-than", "1h"), set()),
        (("--older-than", "0s"), {OLD, NEW}),
    ],
)
def test_filters_hold_for_the_removal_too(
    runpod: RunPodProcess, cleanup: Script, options: tuple[str, ...], taken: set[str]
) -> None:
    runpod.made(OLD, MOORAGE_INSTALLATION="inst-one")
    runpod.made(NEW, MOORAGE_INSTALLATION="inst-two")
    assert cleanup(*url(runpod), *options).code == (3 if taken else 0)
    assert cleanup(*url(runpod), *options, "--delete").code == 0
    assert runpod.names() == {OLD, NEW} - taken


def test_the_key_may_lie_in_a_file(runpod: RunPodProcess, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(runpod.key + "\n")
    ended = Script("cleanup_endpoints.py")(*url(runpod), "--key-file", str(file))
    assert ended.code == 0, ended.err
    assert runpod.key not in ended.err


def test_lost_answers_and_rate_limits_are_asked_again(runpod: RunPodProcess, cleanup: Script) -> None:
    runpod.made(OLD)
    runpod.faults(
        routes=[
            {"route": "GET /v2/serverless", "kind": "rate_limited", "seconds": 1},
            {"route": "DELETE /v2/serverless/{id}", "kind": "lost_answer"},
            {"route": "GET /v2/serverless/{id}", "kind": "bad_gateway"},
        ]
    )
    ended = cleanup(*url(runpod), "--delete")
    assert ended.code == 0, ended.err
    assert "rate limit" in ended.err
    assert runpod.names() == set()


def test_one_that_cannot_be_removed_stops_no_other_and_is_told(
    runpod: RunPodProcess, cleanup: Script
) -> None:
    runpod.made(OLD)
    runpod.made(NEW)
    runpod.faults(routes=[{"route": "DELETE /v2/serverless/{id}", "kind": "unavailable", "times": 5}])
    ended = cleanup(*url(runpod), "--delete")
    assert ended.code == 1, ended.err
    assert f"1 of 2 are left: {OLD}." in ended.err
    assert runpod.names() == {OLD}


def test_garbage_is_not_taken_for_an_empty_account(runpod: RunPodProcess, cleanup: Script) -> None:
    runpod.made(OLD)
    runpod.faults(routes=[{"route": "GET /v2/serverless", "kind": "html"}])
    ended = cleanup(*url(runpod), "--delete")
    assert ended.code == 1
    assert "no JSON" in ended.err


def test_ctrl_c_says_how_to_see_what_is_left(runpod: RunPodProcess, cleanup: Script) -> None:
    runpod.made(OLD)
    slow = {"route": "DELETE /v2/serverless/{id}", "kind": "slow", "seconds": 30}
    runpod.faults(routes=[slow])
    with cleanup.begin(*url(runpod), "--delete") as process:
        runpod.until_asked("DELETE")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Run this again without --delete" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "environ", "code", "words"),
    [
        ((), {"RUNPOD_API_KEY": "rpa_wrong"}, 4, "does not accept the key"),
        ((), {"RUNPOD_API_KEY": ""}, 2, "RUNPOD_API_KEY"),
        ((), {"RUNPOD_API_KEY": "two words"}, 2, "characters that no key has"),
        (("--key-file", "/dev/null/none"), {}, 2, "cannot be read"),
        (("--api-url", "http://127.0.0.1:1"), {}, 5, "does not answer"),
        (("--api-url", "api.runpod.io"), {}, 2, "http://"),
        (("--older-than", "soon"), {}, 2, "2h"),
        (("--older-than", "999999999999d"), {}, 2, "that old"),
    ],
)
def test_what_goes_wrong_has_its_words_and_its_code(
    runpod: RunPodProcess,
    options: tuple[str, ...],
    environ: dict[str, str],
    code: int,
    words: str,
) -> None:
    script = Script("cleanup_endpoints.py", environ or {"RUNPOD_API_KEY": runpod.key})
    ended = Script(script.name)(*url(runpod), *options, **{k: v for k, v in script.environ.items() if v})
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err


def test_a_key_without_permission_is_told_apart(runpod: RunPodProcess, cleanup: Script) -> None:
    runpod.made(OLD)
    runpod.faults(denied_scopes=["serverless:write"])
    ended = cleanup(*url(runpod), "--delete")
    assert ended.code == 4
    assert "may not do this" in ended.err
