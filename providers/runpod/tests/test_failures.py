"""Every refusal of RunPod's becomes the error that tells the engine what to do next."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import (
    Conflict,
    FieldError,
    Gone,
    NoCapacity,
    PermissionMissing,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Retry,
    Unauthorized,
)
from moorage_runpod.failures import Reply, Unanswered, exhausted_for, failure, wait_asked

NO_INSTANCES = (
    "There are no longer any instances available with the requested specifications. "
    "Please refresh and try again."
)
QUOTA = (
    "Max workers across all endpoints must not exceed your workers quota (10). Reduce the max workers for "
    "other endpoints or lower the max worker count for this endpoint to at most 2."
)
IDLE = "idleTimeout does not apply to queue-based endpoints scaling on requestCount"


def reply(status: int, detail: str = "", errors: list[str] | None = None, **headers: str) -> Reply:
    told: dict[str, object] = {"title": "Told", "status": status, "detail": detail}
    if errors is not None:
        told["errors"] = errors
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, names, json.dumps(told).encode())


def of(status: int, detail: str = "", errors: list[str] | None = None, **headers: str) -> ProviderError:
    return failure(reply(status, detail, errors, **headers), "create the endpoint")


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        (400, NO_INSTANCES, NoCapacity),
        (500, NO_INSTANCES, NoCapacity),
        (400, "There are not enough free GPUs on the host machine to start this pod", NoCapacity),
        (400, "gpu and cpu are mutually exclusive", Rejected),
        (401, "missing bearer token", Unauthorized),
        (403, "access denied", PermissionMissing),
        (404, "resource not found", Gone),
        (405, "method not allowed", Rejected),
        (409, "the endpoint is being changed", Conflict),
        (410, "v1 is retired", Rejected),
        (422, IDLE, Rejected),
        (429, "rate limit exceeded for the minute window", Retry),
        (500, "internal error", Unanswered),
        (503, "", Unanswered),
        (302, "", Unanswered),
    ],
)
def test_status_and_words_decide(status: int, detail: str, kind: type[ProviderError]) -> None:
    assert type(of(status, detail)) is kind


def test_a_retired_api_is_named() -> None:
    error = of(410, "gone")
    assert "retired" in error.detail
    assert error.advice == "Update Moorage's RunPod provider."


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (QUOTA, 2),
        ("Max workers across all endpoints will exceed your worker quota of 10 for this account", 10),
        ("Max workers across all endpoints must not exceed your workers quota (5)", 5),
        ("Your worker concurrency cannot go beyond the maximum limit of (20) workers", 20),
        ("you are over your workers quota", None),
    ],
)
@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_quota_tells_its_number(text: str, limit: int | None, status: int) -> None:
    error = of(status, text)
    assert isinstance(error, QuotaExceeded)
    assert error.limit == limit
    assert error.advice


def test_the_retired_form_of_an_error_is_read_too() -> None:
    body = json.dumps({"error": f"create endpoint: graphql: {QUOTA}", "status": 500}).encode()
    error = failure(Reply(500, {}, body), "create the endpoint")
    assert isinstance(error, QuotaExceeded)
    assert error.limit == 2


def test_fields_at_fault_are_named() -> None:
    error = of(422, "Request validation failed.", ["$.workers.idleTimeout: 0 is less than the minimum of 1"])
    assert isinstance(error, Rejected)
    assert error.fields == (FieldError("workers.idleTimeout", "invalid", "0 is less than the minimum of 1"),)


def test_a_missing_field_is_told_and_its_followers_are_not() -> None:
    """RunPod calls each good field an additional one when one is missing."""
    error = of(
        422,
        "Request validation failed.",
        ["$: additional properties 'image', 'type' not allowed", "$: missing property 'name'"],
    )
    assert isinstance(error, Rejected)
    assert [f.field for f in error.fields] == ["name"]
    assert [f.rule for f in error.fields] == ["missing"]
    assert "image" not in error.detail


def test_what_stands_before_runpod_is_not_a_permission() -> None:
    """The network in front answers 403 with a page to clients that it does not like."""
    error = failure(Reply(403, {}, b"<html>error code: 1010</html>"), "list the endpoints")
    assert isinstance(error, Retry)


def test_a_rate_limit_tells_how_long() -> None:
    assert wait_asked({"retry-after": "7"}) == 7
    assert wait_asked({"ratelimit": '"minute";r=0;t=12, "hour";r=2;t=900'}) == 12
    assert wait_asked({}) > 0
    now, until = "Sat, 21 Nov 2026 07:00:00 GMT", "Sat, 21 Nov 2026 07:00:30 GMT"
    assert wait_asked({"retry-after": until, "date": now}) == 30
    error = of(429, "rate limit exceeded", retry_after="7")
    assert isinstance(error, Retry)
    assert error.after == 7


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ('"minute";r=59;t=12, "hour";r=2999;t=1812, "day";r=49999;t=45012', None),
        ('"minute";r=0;t=12, "hour";r=2999;t=1812', 12),
        ('"minute";r=0;t=12, "hour";r=0;t=1812', 1812),
        ("nonsense", None),
    ],
)
def test_used_up_windows(header: str, seconds: float | None) -> None:
    assert exhausted_for({"ratelimit": header}) == seconds


def test_the_servers_clock() -> None:
    assert Reply(200, {"date": "Sat, 21 Nov 2026 07:00:00 GMT"}).date == datetime(2026, 11, 21, 7, tzinfo=UTC)
    assert abs((Reply(200, {"date": "soon"}).date - datetime.now(UTC)).total_seconds()) < 60


@given(
    status=st.integers(300, 599),
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["detail", "errors", "error", "title", "status"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    retry_after=st.text(max_size=20),
    ratelimit=st.text(max_size=40),
)
def test_whatever_comes_becomes_a_provider_error(
    status: int, body: bytes, retry_after: str, ratelimit: str
) -> None:
    error = failure(Reply(status, {"retry-after": retry_after, "ratelimit": ratelimit}, body), "do it")
    assert isinstance(error, ProviderError)
    assert error.detail
    if isinstance(error, Retry):
        assert error.after >= 0
