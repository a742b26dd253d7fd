"""No planted secret comes out of the log, wherever in a line it was, whoever renders it."""

from __future__ import annotations

import io
import json
import logging
import secrets
import string
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any  # what is logged is anything

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

from moorage.adapters import logging as service_logging
from moorage.adapters.redaction import LONGEST_TEXT, REDACTED, Redactor

ALNUM = string.ascii_letters + string.digits
# Built of random letters at each run, so that no rule can know them.
OWN = "mrg_" + "".join(secrets.choice(ALNUM) for _ in range(40))
HUB = "hf_" + "".join(secrets.choice(ALNUM) for _ in range(34))
RUNPOD = "rpa_" + "".join(secrets.choice(ALNUM) for _ in range(40))
WEBHOOK = "whsec_" + "".join(secrets.choice(ALNUM + "+/") for _ in range(44))
SESSION = f"eyJ{secrets.token_urlsafe(24)}.{secrets.token_urlsafe(40)}.{secrets.token_urlsafe(32)}"
FORMED = (OWN, HUB, RUNPOD, WEBHOOK, SESSION)
GIVEN = "qK" + secrets.token_hex(12)  # known to the process alone: it has no form
LISTED = secrets.token_hex(16)
NAMES = ("password", "hf_token", "Authorization", "api_key", "apiKey", "X-Api-Key", "client_secret", "Cookie")


@dataclass(frozen=True)
class Stranger:
    """An object that nobody taught to keep silent."""

    inner: str


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError(GIVEN)


@pytest.fixture(params=["json", "console"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Logs go to a text, which the fixture returns and empties."""
    out = io.StringIO()
    root = logging.getLogger()
    handlers, level, noisy = (
        root.handlers[:],
        root.level,
        {n: logging.getLogger(n).level for n in service_logging.NOISY},
    )
    monkeypatch.setattr(sys, "stderr", out)
    environ = {"MOORAGE_TICK_TOKEN": GIVEN, "MOORAGE_SECRET_KEYS": f"k1:{LISTED}", "HOME": "/somewhere"}
    service_logging.configure(request.param, "debug", environ=environ)
    structlog.configure(cache_logger_on_first_use=False)  # loggers of modules outlive this test

    def taken() -> str:
        text = out.getvalue()
        out.seek(0)
        out.truncate()
        return text

    yield taken
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in noisy.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


planted = st.sampled_from([*FORMED, GIVEN, LISTED])
around = st.text(max_size=12)


@st.composite
def holding(draw: Any) -> tuple[str, object]:
    """A secret, and a value with the secret anywhere in it."""
    secret = draw(planted)
    before, after = draw(around), draw(around)
    value: object = draw(
        st.sampled_from(
            [
                f"{before}{secret} {after}",
                f"{before}{secret}".encode(),
                bytearray(f"{secret}", "utf-8"),
                Stranger(f"{before}{secret}"),
                SecretStr(secret),
                SecretBytes(secret.encode()),
                ValueError(f"{before} {secret}"),
                {secret},
                frozenset([f"{before} {secret}"]),
                {secret: 1},
                {(1, secret): 1},
            ]
        )
    )
    for wrap in draw(st.lists(st.sampled_from(["list", "tuple", "dict", "object", "error"]), max_size=5)):
        value = _WRAPS[wrap](value)
    return secret, value


_WRAPS: Mapping[str, Callable[[Any], object]] = {
    "list": lambda inner: [1, inner],
    "tuple": lambda inner: (inner, None),
    "dict": lambda inner: {"x": inner, "y": 2.5},
    "object": lambda inner: Stranger(inner),
    "error": lambda inner: KeyError(inner),
}
thorough = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@thorough
@given(holding())
def test_no_secret_comes_out_of_a_value(written: Any, found: tuple[str, object]) -> None:
    secret, value = found
    structlog.get_logger("t").warning("came", value=value, more=[value])
    assert_told(written(), secret)


@thorough
@given(holding(), st.sampled_from(["%s", "it was %r", "%.400s"]))
def test_no_secret_comes_out_of_the_standard_library(
    written: Any, found: tuple[str, object], form: str
) -> None:
    secret, value = found
    logging.getLogger("somebody.else").error(form, (value,))
    assert_told(written(), secret)


@thorough
@given(planted, around, st.integers(0, 3))
def test_no_secret_comes_out_of_an_exception(written: Any, secret: str, before: str, how: int) -> None:
    try:
        try:
            fail(f"{before} {secret}")
        except ValueError as error:
            error.add_note(f"see {secret}")
            if how == 0:
                raise
            if how == 1:
                raise KeyError(secret) from error
            raise ExceptionGroup(f"all of {secret}", [error, OSError(secret)]) from None
    except Exception as error:
        if how == 3:
            structlog.get_logger("t").error("failed", exc_info=error)
        elif how == 2:
            logging.getLogger("somebody.else").exception("failed with %s", secret)
        else:
            structlog.get_logger("t").exception("failed", error=error)
    assert_told(written(), secret)


@thorough
@given(
    st.sampled_from(NAMES),
    st.recursive(st.text(min_size=12) | st.binary(min_size=12) | st.floats(), st.lists),
)
def test_what_has_a_secrets_name_is_not_told_at_all(written: Any, name: str, value: object) -> None:
    structlog.get_logger("t").info("came", **{name: value}, nested={"deep": [{name: value}]})
    text = written()
    assert text.count(REDACTED) == 2
    for secret in (value,) if isinstance(value, str) else ():
        assert json.dumps(secret)[1:-1] not in text.replace("came", "")


def test_bound_values_and_events_are_searched_too(written: Any) -> None:
    with structlog.contextvars.bound_contextvars(caller=f"key {OWN}"):
        structlog.get_logger("t").info(f"hello {HUB}", **{f"x{RUNPOD}": 1})
    text = written()
    for secret in (OWN, HUB, RUNPOD):
        assert_told(text, secret)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: [redacted]"),
        ("it sent Basic dXNlcjpwYXNz, twice", "it sent Basic [redacted], twice"),
        ("postgresql://user:p4ss@db/moorage", "postgresql://user:[redacted]@db/moorage"),
        ("GET /x?token=abc&page=2", "GET /x?token=[redacted]&page=2"),
        ('{"password": "a b c", "n": 1}', '{"password": [redacted], "n": 1}'),
        ("{'hf_token': 'abc', 'n': 1}", "{'hf_token': [redacted], 'n': 1}"),
        ("https://b.s3/x?X-Amz-Signature=ff00&y=1", "https://b.s3/x?X-Amz-Signature=[redacted]&y=1"),
        (
            "key:\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nend",
            "key:\n-----BEGIN RSA PRIVATE KEY-----[redacted]\nend",
        ),
        ("mrg_abcdefgh1234 was revoked", "mrg_[redacted] was revoked"),
        (
            "body.hf_model_id: there is no model acme/nothing",
            "body.hf_model_id: there is no model acme/nothing",
        ),
        ("dep_27k4m6q2x5y3zj7abcdefghijk is ready", "dep_27k4m6q2x5y3zj7abcdefghijk is ready"),
        ("the token was refused", "the token was refused"),
    ],
)
def test_forms(text: str, told: str) -> None:
    assert Redactor().text(text) == told


def test_ids_of_credentials_are_told() -> None:
    told = Redactor().mapping({"credential_id": "crd_1", "api_key_id": "key_1", "secret": None, "n": 2**40})
    assert told == {"credential_id": "crd_1", "api_key_id": "key_1", "secret": None, "n": 2**40}


def test_what_is_large_is_cut() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    redactor = Redactor()
    assert len(json.dumps(redactor.plain(deep))) < 100
    assert len(str(redactor.plain("x" * 10**6))) < 30_000
    assert len(json.dumps(redactor.plain({str(i): i for i in range(10**4)}))) < 10_000
    assert redactor.plain(1 << 10**6) == "<a long number>"


def test_what_cannot_be_told_is_said_not_to_be() -> None:
    told = json.dumps(Redactor().plain([Broken(), {"x": Broken()}, {Broken(): 1}]))
    assert told.count("cannot be told") == 3
    assert GIVEN not in told


def test_a_line_that_cannot_be_made_is_told_without_what_was_in_it(written: Any) -> None:
    ours = next(h for h in logging.getLogger().handlers if type(h).__module__ == service_logging.__name__)
    ours.handle(logging.LogRecord("somebody.else", logging.ERROR, __file__, 1, "%d of them", (OWN,), None))
    text = written()
    assert "log.line_lost" in text
    assert OWN not in text


def fail(words: str) -> None:
    raise ValueError(words)


def assert_told(text: str, secret: str) -> None:
    """Something was written, and the secret is not in it, in whole or in its greater part."""
    assert text.strip()
    assert secret not in text
    assert secret[len(secret) // 2 :] not in text, text


def test_a_long_text_is_cut_before_it_is_searched() -> None:
    text = f"{'a' * LONGEST_TEXT}token={OWN} {'b' * 10 * LONGEST_TEXT}"
    told = Redactor().text(text)
    assert told == f"{'a' * LONGEST_TEXT}… ({len(text)} characters)"
    short = Redactor().text(f"token={OWN}{' b' * 3 * LONGEST_TEXT}")
    assert OWN not in short
    assert short.startswith(f"token={REDACTED}")
    assert short.endswith("characters)")
