"""What goes in and comes out: inputs, bodies, streams, and how things are written for people."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.cli import rendering, request_options, sse
from moorage.cli.failures import Usage
from moorage.cli.inferring import read_input
from moorage.cli.output import problem_lines

PNG = b"\x89PNG\r\n\x1a\n\x00\x00"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hello", "hello"),
        ("5", "5"),
        ('{"a": 1}', {"a": 1}),
        (" [1, 2]", [1, 2]),
        ('"@quoted"', "@quoted"),
        ("@", "@"),
        ("", ""),
    ],
)
def test_inputs(text: str, value: object) -> None:
    assert read_input(text) == value


def test_inputs_from_files(tmp_path: Path) -> None:
    for name, content in (("a.png", PNG), ("a.json", b"[1]"), ("a.txt", "é".encode()), ("nul", b"a\0b")):
        (tmp_path / name).write_bytes(content)
    assert read_input(f"@{tmp_path}/a.png") == base64.b64encode(PNG).decode()
    assert read_input(f"@{tmp_path}/a.json") == [1]
    assert read_input(f"@{tmp_path}/a.txt") == "é"
    assert read_input(f"@{tmp_path}/nul") == "YQBi"


@pytest.mark.parametrize("text", ["{", "[1,", '"', "@/no/such/file", "@/"])
def test_inputs_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(Usage):
        read_input(text)


def test_a_body_has_what_was_given_and_nothing_else() -> None:
    body = request_options.body("a/b", None, ["X=1", "Y=a=b", "Z="], spot=False, region=None, min_replicas=2)
    assert body == {
        "hf_model_id": "a/b",
        "env": {"X": "1", "Y": "a=b", "Z": ""},
        "spot": False,
        "min_replicas": 2,
    }


def test_a_token_of_the_environment_is_not_sent_along_with_an_image() -> None:
    assert request_options.body(None, "nginx", None, hf_token="hf_x") == {"container_image": "nginx"}


def test_any_field_can_be_set_as_json_or_as_text() -> None:
    given = ["idle_timeout=60", "flashboot=true", "endpoint_type=queue", 'data_centers=["EU-RO-1"]']
    assert request_options.body("a/b", None, None, None, given) == {
        "hf_model_id": "a/b",
        "idle_timeout": 60,
        "flashboot": True,
        "endpoint_type": "queue",
        "data_centers": ["EU-RO-1"],
    }


def test_a_bucket_is_opened_with_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert request_options.body("a/b", None, None, "s3://bucket/models") == {
        "hf_model_id": "a/b",
        "cache_scope": "private",
        "user_s3_url": "s3://bucket/models",
        "user_aws_access_key_id": "AKIA",
        "user_aws_secret_access_key": "secret",
    }
    assert request_options.body("a/b", None, None, "shared") == {
        "hf_model_id": "a/b",
        "cache_scope": "shared",
    }


@pytest.mark.parametrize(
    "given", [(None, None, None), ("a/b", "nginx", None), ("a/b", None, ["X"]), ("a/b", None, ["=1"])]
)
def test_bodies_that_cannot_be_meant(given: tuple[str | None, str | None, list[str] | None]) -> None:
    with pytest.raises(Usage) as raised:
        request_options.body(*given)
    assert raised.value.exit_code == 2


def test_events_are_read_as_the_format_has_it() -> None:
    lines = [": hello", "", "event: log", "data: a", "data:b", "", "id: 7", "data: c", "", "data: cut off"]
    assert list(sse.messages(lines)) == [sse.Message("a\nb", "log"), sse.Message("c", "message", "7")]


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n"), min_size=1), max_size=5))
def test_any_data_survives_the_stream(texts: list[str]) -> None:
    lines = [line for text in texts for line in (f"data: {text}", "")]
    assert [m.data for m in sse.messages(lines)] == texts


def test_a_problem_is_told_once_with_every_field() -> None:
    document = {
        "title": "Invalid request",
        "detail": "too big; too small",
        "errors": [
            {"field": "body.a", "rule": "max", "message": "too big"},
            {"field": "body.b", "rule": "min", "message": "too small"},
        ],
        "advice": "Change it.",
    }
    assert [line.plain for line in problem_lines(document)] == [
        "Invalid request",
        "  body.a (max): too big",
        "  body.b (min): too small",
        "  → Change it.",
    ]


def test_a_problem_s_detail_is_told_when_its_fields_do_not_say_it() -> None:
    document = {"title": "T", "detail": "Why.", "errors": [{"field": "a", "rule": "r", "message": "m"}]}
    assert [line.plain for line in problem_lines(document)] == ["T", "  Why.", "  a (r): m"]


@pytest.mark.parametrize(
    ("accrued", "shown"), [(0.000012, "$0.000012"), (9.5, "$9.500000"), (12.345, "$12.35")]
)
def test_costs_show_what_seconds_cost(accrued: float, shown: str) -> None:
    assert rendering.cost({"cost": {"accrued": accrued}}) == shown


@pytest.mark.parametrize(
    ("instant", "shown"),
    [
        ("2026-11-21T09:59:31Z", "29 s"),
        ("2026-11-21T09:50:00Z", "10 min"),
        ("2026-11-20T09:00:00Z", "1 d"),
        ("2026-11-21T10:00:09Z", "0 s"),
    ],
)
def test_ages(instant: str, shown: str) -> None:
    assert rendering.age(instant, datetime(2026, 11, 21, 10, tzinfo=UTC)) == shown


@pytest.mark.parametrize(
    "outputs", [[], "text", [1, 2], [{"label": "a"}], [[{"label": "a", "score": 1}]], None]
)
def test_other_answers_than_scores_are_shown_as_they_are(outputs: object) -> None:
    assert rendering.scores(outputs) is None
