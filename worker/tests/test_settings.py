"""What a worker is told: by people with flags, by providers with variables; mistakes are told by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_worker.redaction import SECRET_VARIABLES, without_secrets
from moorage_worker.settings import MAX_THREADS, WorkerSettings, parse_settings
from moorage_worker.state_reports import ReportSettings

SECRET = "whsec_c2VjcmV0LW9mLXRoaXMtZW5kcG9pbnQtYWxvbmU="
QUEUE = {"RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1:9/w/e/job-take/$ID?gpu=x"}
CALLBACK = {
    "MOORAGE_CALLBACK_URL": "https://moorage.example/v1/workers/mrg-x/state",
    "MOORAGE_CALLBACK_SECRET": SECRET,
    "MOORAGE_ENDPOINT_NAME": "mrg-x",
}


def settings(*flags: str, **environ: str) -> WorkerSettings:
    return parse_settings(flags, {"MOORAGE_WORKER_MODEL": "acme/painter", **environ})


def refusal(capsys: pytest.CaptureFixture[str], *flags: str, **environ: str) -> str:
    """The last line that is said of settings that must be refused."""
    with pytest.raises(SystemExit, match="2"):
        settings(*flags, **environ)
    return capsys.readouterr().err.splitlines()[-1]


def test_a_provider_says_everything_with_variables() -> None:
    found = settings(
        MOORAGE_WORKER_MODEL_ID="painter",
        MOORAGE_WORKER_REVISION="c0ffee",
        MOORAGE_WORKER_ENGINE="diffusers",
        MOORAGE_WORKER_TASK="text-to-image",
        MOORAGE_WORKER_FACE="jobs",
        MOORAGE_WORKER_DTYPE="bfloat16",
        MOORAGE_WORKER_VARIANT="fp16",
        MOORAGE_WORKER_THREADS="3",
        RUNPOD_POD_ID="pod-7",
        **QUEUE,
        **CALLBACK,
    )
    assert (found.model, found.model_id, found.revision) == ("acme/painter", "painter", "c0ffee")
    assert (found.engine, found.task, found.face) == ("diffusers", "text-to-image", "jobs")
    assert (found.dtype, found.variant, found.threads) == ("bfloat16", "fp16", 3)
    assert found.reports == ReportSettings(CALLBACK["MOORAGE_CALLBACK_URL"], "mrg-x", "pod-7", SECRET)


def test_flags_win_over_variables() -> None:
    told = {
        "MOORAGE_WORKER_ENGINE": "onnx",
        "MOORAGE_WORKER_TASK": "text-classification",
        "MOORAGE_WORKER_THREADS": "3",
        "PORT": "8000",
    }
    flags = ("--model", "acme/critic", "--engine", "auto", "--task", "tensors", "--threads", "5")
    found = settings(*flags, "--port", "0", **told)
    assert (found.model, found.model_id) == ("acme/critic", "acme/critic")
    assert (found.engine, found.task, found.threads) == (None, "tensors", 5)
    assert (found.port, found.host) == (0, "127.0.0.1")


def test_what_nobody_says_is_found_out_or_the_default() -> None:
    found = settings()
    assert (found.engine, found.task, found.dtype, found.variant) == (None, None, None, None)
    assert (found.face, found.host, found.port) == ("http", "127.0.0.1", 8000)
    assert (found.health_port, found.health_path, found.reports) == (None, "/ping", None)
    assert 1 <= found.threads <= 8


def test_empty_variables_are_as_good_as_none() -> None:
    empty = dict.fromkeys(
        ("MOORAGE_WORKER_ENGINE", "MOORAGE_WORKER_DTYPE", "PORT", "HEALTH_CHECK_PATH", *CALLBACK), ""
    )
    assert settings(**empty) == settings()


def test_a_load_balancer_comes_from_outside() -> None:
    found = settings(PORT="8080", PORT_HEALTH="8081", HEALTH_CHECK_PATH="/healthz")
    assert (found.host, found.port, found.health_port) == ("0.0.0.0", 8080, 8081)
    assert found.health_path == "/healthz"
    assert settings(PORT="8080", PORT_HEALTH="8080").health_port is None
    assert settings("--port=0", PORT="8080").host == "127.0.0.1"
    assert settings("--port", "0", "--host", "::1", PORT="8080").host == "::1"


def test_a_folder_is_known_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "painter"
    folder.mkdir()
    assert settings("--model", str(folder)).model_id == "painter"


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (("--model", ""), "--model or MOORAGE_WORKER_MODEL must be set"),
        (("--port", "70000"), "argument --port: must be a whole number from 0 to 65535, got '70000'"),
        (("--threads", "0"), f"argument --threads: must be a whole number from 1 to {MAX_THREADS}, got '0'"),
        (("--task", "poetry"), "argument --task: invalid choice: 'poetry'"),
        (("--engine", "steam"), "argument --engine: invalid choice: 'steam'"),
        (("--face", "jobs"), "--face jobs needs RUNPOD_WEBHOOK_GET_JOB"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(
    flags: tuple[str, ...], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rule in refusal(capsys, *flags)


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("MOORAGE_WORKER_MODEL", " ", "must be set, and not empty"),
        ("MOORAGE_WORKER_ENGINE", "steam", "must be one of auto, onnx"),
        ("MOORAGE_WORKER_TASK", "poetry", "must be one of auto, text-classification"),
        ("MOORAGE_WORKER_DTYPE", "int3", "must be one of float32, float16, bfloat16"),
        ("MOORAGE_WORKER_FACE", "tcp", "must be one of http, jobs, queue, queue_front, queue_removal, got"),
        ("MOORAGE_WORKER_THREADS", "many", f"must be a whole number from 1 to {MAX_THREADS}, got 'many'"),
        ("PORT", "0x50", "must be a whole number from 0 to 65535"),
        ("PORT_HEALTH", "-1", "must be a whole number from 0 to 65535"),
        ("HEALTH_CHECK_PATH", "ping", "must be a path such as /ping, got 'ping'"),
        ("HEALTH_CHECK_PATH", "/{name}", "must be a path such as /ping"),
        ("MOORAGE_CACHE_SCOPE", "public", "must be off, private or shared, not 'public'"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(
    variable: str, value: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, **{variable: value})
    assert variable in line
    assert rule in line


def test_a_wrong_variable_is_told_even_where_a_flag_stands_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "PORT must be" in refusal(capsys, "--port", "0", PORT="http")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"MOORAGE_CALLBACK_URL": "moorage.example"}, "MOORAGE_CALLBACK_URL must be"),
        ({"MOORAGE_CALLBACK_URL": "ftp://moorage.example/x"}, "MOORAGE_CALLBACK_URL must be"),
        ({"MOORAGE_CALLBACK_SECRET": ""}, "MOORAGE_CALLBACK_SECRET must be set"),
        ({"MOORAGE_CALLBACK_SECRET": "hunter2!"}, "MOORAGE_CALLBACK_SECRET must be whsec_ and base64"),
        ({"MOORAGE_ENDPOINT_NAME": ""}, "MOORAGE_ENDPOINT_NAME must be set"),
    ],
)
def test_reports_that_cannot_be_sent_are_refused_without_the_secret(
    change: dict[str, str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, **{**CALLBACK, **change})
    assert rule in line
    assert SECRET not in line
    assert "hunter2" not in line


def test_an_endpoint_that_has_no_callback_reports_to_nobody() -> None:
    assert settings(MOORAGE_ENDPOINT_NAME="mrg-x", MOORAGE_CALLBACK_SECRET=SECRET).reports is None


def test_settings_do_not_show_secrets() -> None:
    cache = {
        "MOORAGE_CACHE_SCOPE": "private",
        "MOORAGE_CACHE_URL": "s3://models/moorage",
        "MOORAGE_CACHE_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "MOORAGE_CACHE_SECRET_ACCESS_KEY": "the/other/secret",
    }
    shown = repr(settings(HF_TOKEN="hf_secret", **CALLBACK, **cache))
    assert "mrg-x" in shown
    for secret in (SECRET, "the/other/secret", "hf_secret"):
        assert secret not in shown


@given(
    st.sampled_from(SECRET_VARIABLES),
    st.text("abcdefghij+/=_", min_size=6, max_size=40),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_a_secret_is_named_in_place_of_itself(variable: str, secret: str, before: str, after: str) -> None:
    told = without_secrets(f"{before}{secret}{after}", {variable: secret})
    assert f"<{variable}>" in told
    assert secret not in told.replace(f"<{variable}>", "")


def test_placeholders_for_secrets_do_not_blank_out_text() -> None:
    assert without_secrets("none of it, x", {"HF_TOKEN": "x", "RUNPOD_API_KEY": ""}) == "none of it, x"
