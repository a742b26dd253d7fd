"""What a queue's faces are told, and what they refuse; no secret is in what they say."""

from __future__ import annotations

import pytest

from moorage_worker.errors import SettingsError
from moorage_worker.queue.settings import QueueSettings, place
from moorage_worker.redaction import without_secrets
from moorage_worker.settings import parse_settings

PASSWORD = "p%40ss-word"
WHOLE = {
    "MOORAGE_QUEUE_URL": f"amqp://user:{PASSWORD}@broker:5672/vhost",
    "MOORAGE_QUEUE_NAME": "mrg-a1",
    "MOORAGE_RESULTS_URL": f"redis://:{PASSWORD}@store:6379/0",
}


def test_what_is_not_told_has_a_default() -> None:
    settings = QueueSettings.read(WHOLE)
    assert (settings.consumers, settings.grace_seconds) == (1, 30)
    assert (settings.result_seconds, settings.attempts) == (86_400, 3)


@pytest.mark.parametrize("variable", list(WHOLE))
@pytest.mark.parametrize("value", ["", "  "])
def test_what_must_be_told_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} must be set"):
        QueueSettings.read({**WHOLE, variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MOORAGE_QUEUE_URL", f"http://user:{PASSWORD}@broker"),
        ("MOORAGE_QUEUE_URL", f"amqp://user:{PASSWORD}@"),
        ("MOORAGE_QUEUE_URL", f"amqp://user:{PASSWORD}@broker:port"),
        ("MOORAGE_RESULTS_URL", f"unix://user:{PASSWORD}@/socket"),
        ("MOORAGE_RESULTS_URL", f"redis://user:{PASSWORD}@[broken"),
        ("MOORAGE_QUEUE_NAME", "with space"),
        ("MOORAGE_QUEUE_NAME", "amq.mine"),
        ("MOORAGE_QUEUE_NAME", "x" * 201),
        ("MOORAGE_QUEUE_CONSUMERS", "0"),
        ("MOORAGE_QUEUE_CONSUMERS", "257"),
        ("MOORAGE_QUEUE_CONSUMERS", "many"),
        ("MOORAGE_QUEUE_GRACE_SECONDS", "-1"),
        ("MOORAGE_QUEUE_GRACE_SECONDS", "1.5"),
        ("MOORAGE_RESULT_SECONDS", "0"),
        ("MOORAGE_QUEUE_ATTEMPTS", "11"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} ") as refused:
        QueueSettings.read({**WHOLE, variable: value})
    assert PASSWORD not in str(refused.value)


def test_no_password_is_in_what_settings_say_of_themselves() -> None:
    settings = QueueSettings.read(WHOLE)
    assert PASSWORD not in repr(settings)
    assert place(settings.url) == "broker:5672"
    said = f"cannot log in with {PASSWORD} or p@ss-word at {settings.url}"
    assert "ss-word" not in without_secrets(said, WHOLE)


@pytest.mark.parametrize("face", ["queue", "queue_front"])
def test_the_command_ends_with_the_variable_that_is_missing(
    face: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--model", "acme/m"], {"MOORAGE_WORKER_FACE": face})
    assert "MOORAGE_QUEUE_URL must be set" in capsys.readouterr().err


def test_a_front_needs_no_model_and_a_worker_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_settings([], {**WHOLE, "MOORAGE_WORKER_FACE": "queue_front"}).queue is not None
    with pytest.raises(SystemExit):
        parse_settings([], {**WHOLE, "MOORAGE_WORKER_FACE": "queue"})
    assert "MOORAGE_WORKER_MODEL must be set" in capsys.readouterr().err


def test_the_other_faces_ask_for_nothing_of_a_queue() -> None:
    assert parse_settings(["--model", "acme/m"], WHOLE).queue is None
