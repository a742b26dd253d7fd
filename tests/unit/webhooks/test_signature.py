"""Our signatures, judged by the standard's own example and by its Python package."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from moorage.domain.delivery import WebhookSecret, message_headers, retry_after_seconds
from moorage.domain.webhook_signature import new_secret, previous_valid, rotated, sealed_in_use, sign

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_example_of_the_specification() -> None:
    at = datetime.fromtimestamp(1614265330, UTC)
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=32, max_size=32), st.text(st.characters(codec="utf-8")))
def test_package_accepts_what_we_sign(entropy: bytes, payload: str) -> None:
    secret, at = new_secret(entropy), datetime.now(UTC)
    headers = message_headers("msg_1", at, (sign(secret, "msg_1", at, payload),))
    Webhook(secret).verify(payload, dict(headers), json_parse=False)


def test_zone_of_the_moment_does_not_matter() -> None:
    secret = new_secret(bytes(32))
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert sign(secret, "m", NOW, "{}") == sign(secret, "m", elsewhere, "{}")


@pytest.mark.parametrize("size", [0, 24, 31, 33])
def test_secret_has_exactly_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        new_secret(bytes(size))


def test_rotation_keeps_the_old_secret_for_a_day_and_a_still_older_one_not_at_all() -> None:
    first = WebhookSecret("org", "one", NOW)
    assert sealed_in_use(first, NOW) == ("one",)
    second = rotated(first, "two", NOW)
    end = NOW + timedelta(hours=24)
    assert sealed_in_use(second, end - timedelta(microseconds=1)) == ("two", "one")
    assert sealed_in_use(second, end) == ("two",)
    assert not previous_valid(second, end)
    assert sealed_in_use(rotated(second, "three", NOW), NOW) == ("three", "two")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("999999999999", 86400.0),
        ("Sat, 21 Nov 2026 12:01:00 GMT", 60.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:01:00 -0000", 60.0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", 86400.0),
        ("-5", None),
        ("1e9", None),
        ("inf", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text())
def test_retry_after_never_raises_nor_exceeds_the_cap(value: str) -> None:
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or 0 <= seconds <= 86400
