"""What the gateway counted, in the text that Prometheus reads: autoscalers ask for rates, latencies and load.

Written here and not by a client library: the counts exist already, and ten thousand deployments are a quarter
of a million lines, which must come in pieces so that no request waits for them. Deployments are named by id
alone. A label needs no escaping, because ids are the service's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, islice

from moorage.gateway.metering import BUCKETS, GROWTH, SHORTEST, Tally

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
AT_ONCE = 100  # deployments in one piece

_STEP = 9  # buckets of the meter in one of Prometheus: each bound is twice the last
# From 0.8 milliseconds to two minutes: the number of the meter's buckets below each bound, and the bound
_BOUNDS = tuple((edge, f"{SHORTEST * GROWTH**edge:.6g}") for edge in range(3 * _STEP, 21 * _STEP, _STEP))

_Lines = Callable[[str, Tally], str]


def exposition(tallies: Mapping[str, Tally]) -> Iterator[bytes]:
    """In pieces of moderate size. `tallies` may change between two of them: then each piece is right for its
    own moment."""
    known = tuple(tallies.items())
    for name, kind, meaning, lines in _METRICS:
        yield f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n".encode()
        rest = iter(known)
        while some := tuple(islice(rest, AT_ONCE)):
            yield "".join([lines(id_, tally) for id_, tally in some]).encode()


def _requests(id_: str, tally: Tally) -> str:
    return "".join(
        [
            f'moorage_gateway_requests_total{{deployment="{id_}",code="{status}"}} {count}\n'
            for status, count in sorted(tally.statuses.items())
        ]
    )


def _in_flight(id_: str, tally: Tally) -> str:
    return f'moorage_gateway_requests_in_flight{{deployment="{id_}"}} {tally.in_flight}\n'


def _duration(id_: str, tally: Tally) -> str:
    name, label = "moorage_gateway_request_duration_seconds", f'deployment="{id_}"'
    below = tuple(accumulate(tally.counts))
    lines = [f'{name}_bucket{{{label},le="{bound}"}} {below[edge - 1]}\n' for edge, bound in _BOUNDS]
    count = below[BUCKETS - 1]
    lines.append(f'{name}_bucket{{{label},le="+Inf"}} {count}\n')
    lines.append(f"{name}_sum{{{label}}} {tally.total:.9g}\n{name}_count{{{label}}} {count}\n")
    return "".join(lines)


_METRICS: tuple[tuple[str, str, str, _Lines], ...] = (
    (
        "moorage_gateway_requests_total",
        "counter",
        "Requests that ended, by HTTP status; 499 is a caller who left.",
        _requests,
    ),
    (
        "moorage_gateway_requests_in_flight",
        "gauge",
        "Requests that have come and not ended, those that wait for a replica too.",
        _in_flight,
    ),
    (
        "moorage_gateway_request_duration_seconds",
        "histogram",
        "Seconds from the arrival of a request to the last byte of its answer.",
        _duration,
    ),
)
