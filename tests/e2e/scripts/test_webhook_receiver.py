"""The receiver believes what is signed, and nothing else."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks import Webhook

from .conftest import Script

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests, 32 bytes!").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret, of 32 bytes, too").decode()
RECEIVER = Script("webhook_receiver.py", {"MOORAGE_WEBHOOK_SECRET": SECRET})
BODY = json.dumps({"type": "deployment.ready", "data": {"name": "häfen"}}, ensure_ascii=False)


def signed(body: str, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body),
    }


@pytest.fixture
def receiver() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with RECEIVER.begin() as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]
        process.terminate()


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    return httpx.post(url, content=body, headers=headers, trust_env=False, timeout=20).status_code


def test_a_signed_message_is_told_and_sigterm_ends_it(
    receiver: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = receiver
    assert post(url, BODY.encode(), signed(BODY)) == 204
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told == {"verified": True, "id": "msg_1", "message": json.loads(BODY)}
    process.terminate()
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY.encode(), {}),
        (BODY.encode(), signed(BODY, OTHER)),
        (BODY.encode() + b" ", signed(BODY)),
        (BODY.encode(), signed(BODY, at=datetime.now(UTC) - timedelta(minutes=10))),
        (BODY.encode(), signed(BODY) | {"webhook-signature": "v1"}),
        (BODY.encode(), signed(BODY) | {"webhook-signature": "v1,a"}),
        (BODY.encode(), signed(BODY) | {"webhook-timestamp": "yesterday"}),
        (b"\xff\xfe", signed(BODY)),
        (b"", signed(BODY)),
        (b"no json", signed("no json")),
    ],
)
def test_what_does_not_verify_is_refused_and_the_next_is_taken(
    receiver: tuple[subprocess.Popen[str], str], body: bytes, headers: dict[str, str]
) -> None:
    process, url = receiver
    assert post(url, body, headers) == 401
    assert post(url, BODY.encode(), signed(BODY)) == 204
    assert process.stdout is not None
    told = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [line["verified"] for line in told] == [False, True]
    assert told[0]["why"]
    process.terminate()
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_body_that_is_too_long_is_not_read(receiver: tuple[subprocess.Popen[str], str]) -> None:
    _, url = receiver
    assert post(url, b"x" * (1 << 20) + b"x", {}) == 413


def test_it_ends_after_as_many_as_it_was_told() -> None:
    with RECEIVER.begin("--count", "2") as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert post(url, BODY.encode(), {}) == 401
        assert [post(url, BODY.encode(), signed(BODY)) for _ in range(2)] == [204, 204]
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert [json.loads(line)["verified"] for line in out.splitlines()] == [False, True, True]


def test_ctrl_c_ends_it() -> None:
    with RECEIVER.begin() as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = RECEIVER("--port", str(taken.getsockname()[1]))
    assert (ended.code, ended.out) == (1, "")
    assert "Cannot listen" in ended.err


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        ((), {}, "Set MOORAGE_WEBHOOK_SECRET"),
        ((), {"MOORAGE_WEBHOOK_SECRET": "whsec_!!"}, "no webhook secret"),
        ((), {"MOORAGE_WEBHOOK_SECRET": "whsec_é"}, "no webhook secret"),
        (("--count", "0"), {"MOORAGE_WEBHOOK_SECRET": SECRET}, "at least 1"),
        (("--port", "many"), {"MOORAGE_WEBHOOK_SECRET": SECRET}, "--port"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    arguments: tuple[str, ...], environ: dict[str, str], words: str
) -> None:
    ended = Script("webhook_receiver.py", environ)(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
