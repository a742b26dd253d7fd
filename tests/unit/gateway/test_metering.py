from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from moorage.gateway.metering import (
    BUCKETS,
    GROWTH,
    LONGEST,
    RELATIVE_ERROR,
    SHORTEST,
    Histogram,
    Meter,
    Usage,
    bucket_of,
    middle_of,
)

SECONDS = st.floats(SHORTEST, LONGEST)


def metered(latencies: list[float]) -> Usage:
    meter = Meter()
    for seconds in latencies:
        meter.begin("dep_1").end(200, seconds)
    return meter.usage("dep_1")


@given(st.lists(SECONDS, min_size=1), st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(latencies: list[float], q: float) -> None:
    exact = sorted(latencies)[max(1, math.ceil(q * len(latencies))) - 1]
    estimate = metered(latencies).latency.quantile(q)
    assert estimate is not None
    assert abs(estimate - exact) <= exact * (RELATIVE_ERROR + 1e-9)


@given(st.lists(SECONDS, min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_do_not_decrease(latencies: list[float], a: float, b: float) -> None:
    histogram = metered(latencies).latency
    low, high = histogram.quantile(min(a, b)), histogram.quantile(max(a, b))
    assert low is not None
    assert high is not None
    assert low <= high <= histogram.longest


@given(st.lists(SECONDS), st.lists(SECONDS))
def test_merging_is_recording_together(first: list[float], second: list[float]) -> None:
    merged, together = metered(first) + metered(second), metered(first + second)
    assert merged.latency.counts == together.latency.counts
    assert merged.latency.longest == together.latency.longest
    assert math.isclose(merged.latency.total, together.latency.total)
    assert merged.statuses == together.statuses


@given(st.floats(0, 1e9))
def test_every_latency_has_a_bucket(seconds: float) -> None:
    assert 0 <= bucket_of(seconds) < BUCKETS


def test_buckets_cover_the_range_and_hold_their_own_middles() -> None:
    assert [bucket_of(middle_of(i)) for i in range(BUCKETS)] == list(range(BUCKETS))
    assert SHORTEST * GROWTH**BUCKETS >= LONGEST


def test_nothing_recorded_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_usage_counts_and_adds_up() -> None:
    meter = Meter()
    meter.begin("dep_1").end(200, 0.1, bytes_in=10, bytes_out=20)
    meter.begin("dep_1").end(502, 0.2, bytes_in=1)
    meter.begin("dep_2").end(499, 0.3)
    one, two = meter.usage("dep_1"), meter.usage("dep_2")
    assert (one.requests, one.errors, one.bytes_in, one.bytes_out) == (2, 1, 11, 20)
    assert (two.requests, two.errors) == (1, 0)
    assert (one + two).statuses == {200: 1, 502: 1, 499: 1}
    assert one.requests == 2  # what was given away does not change


def test_a_request_is_in_flight_from_its_beginning_to_its_end() -> None:
    meter = Meter()
    first, second = meter.begin("dep_1"), meter.begin("dep_1")
    assert meter.tallies()["dep_1"].in_flight == 2
    first.end(200, 0.1)
    assert meter.tallies()["dep_1"].in_flight == 1
    second.end(200, 0.1)
    assert meter.tallies()["dep_1"].in_flight == 0


def test_a_deployment_that_is_gone_is_forgotten_with_what_is_under_way() -> None:
    meter = Meter()
    late = meter.begin("dep_1")
    meter.begin("dep_2").end(200, 0.1)
    meter.keep({"dep_2"})
    late.end(200, 0.1)
    assert set(meter.tallies()) == {"dep_2"}
    assert meter.usage("dep_1") == Usage()
