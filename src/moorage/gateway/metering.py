"""Counts and latencies of what the gateway carried, in memory that does not grow with traffic.

Latencies go into buckets whose bounds grow by a constant factor, so that any quantile is known to a bounded
relative error and histograms of several processes or periods add up exactly.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

GROWTH = 1.08
RELATIVE_ERROR = math.sqrt(GROWTH) - 1  # of a quantile between SHORTEST and LONGEST, about 3.9 %
SHORTEST = 1e-4  # seconds; anything shorter counts as this
LONGEST = 3600.0  # seconds; anything longer is told apart only by `Histogram.longest`
_PER_LOG = 1 / math.log(GROWTH)
BUCKETS = math.ceil(math.log(LONGEST / SHORTEST) * _PER_LOG) + 1

CLIENT_CLOSED_REQUEST = 499  # the customary code for a caller who left before the answer; never sent


def bucket_of(seconds: float) -> int:
    """The bucket i with SHORTEST * GROWTH**i <= seconds < SHORTEST * GROWTH**(i+1), cut at both ends."""
    if seconds <= SHORTEST:
        return 0
    return min(int(math.log(seconds / SHORTEST) * _PER_LOG), BUCKETS - 1)


def middle_of(bucket: int) -> float:
    """The geometric middle of a bucket, in seconds: the value with the least relative error."""
    return SHORTEST * math.pow(GROWTH, bucket + 0.5)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Latencies in seconds. `+` merges two."""

    counts: tuple[int, ...] = (0,) * BUCKETS
    total: float = 0.0
    longest: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """The value that a share `q` (0 to 1) of the latencies does not exceed; None when there is none."""
        count = self.count
        if not count:
            return None
        rank = max(1, math.ceil(q * count))
        bucket = next(i for i, seen in enumerate(accumulate(self.counts)) if seen >= rank)
        return min(middle_of(bucket), self.longest)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            tuple(map(sum, zip(self.counts, other.counts, strict=True))),
            self.total + other.total,
            max(self.longest, other.longest),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What one deployment carried. `statuses` counts answers by HTTP status; 499 is a caller who left."""

    statuses: Mapping[int, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    latency: Histogram = Histogram()

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Answers that were the service's or the model's fault."""
        return sum(n for status, n in self.statuses.items() if status >= 500)

    def __add__(self, other: Usage) -> Usage:
        statuses = dict(self.statuses)
        for status, n in other.statuses.items():
            statuses[status] = statuses.get(status, 0) + n
        return Usage(
            statuses,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.latency + other.latency,
        )


class Tally:
    """The counts of one deployment, while they are being made. Counts only grow, `in_flight` aside."""

    __slots__ = ("bytes_in", "bytes_out", "counts", "in_flight", "longest", "statuses", "total")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.counts = [0] * BUCKETS
        self.total = 0.0
        self.longest = 0.0
        self.in_flight = 0  # requests that have begun and not ended

    def end(self, status: int, seconds: float, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Of one request that `Meter.begin` counted, `seconds` from its arrival to the last byte of its
        answer."""
        self.in_flight -= 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self.counts[bucket_of(seconds)] += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds

    def usage(self) -> Usage:
        latency = Histogram(tuple(self.counts), self.total, self.longest)
        return Usage(dict(self.statuses), self.bytes_in, self.bytes_out, latency)


class Meter:
    """Counts by deployment. Not for several threads: the gateway's event loop is the only writer."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def begin(self, deployment_id: str) -> Tally:
        """A request has come; to be ended once. A tally that was forgotten meanwhile takes it with it."""
        tally = self._tallies.get(deployment_id)
        if tally is None:
            tally = self._tallies[deployment_id] = Tally()
        tally.in_flight += 1
        return tally

    def usage(self, deployment_id: str) -> Usage:
        tally = self._tallies.get(deployment_id)
        return tally.usage() if tally is not None else Usage()

    def tallies(self) -> Mapping[str, Tally]:
        """By deployment id, as they are and go on being."""
        return self._tallies

    def keep(self, deployment_ids: Container[str]) -> None:
        """Drops the counts of all other deployments: those that are gone."""
        self._tallies = {id_: tally for id_, tally in self._tallies.items() if id_ in deployment_ids}
