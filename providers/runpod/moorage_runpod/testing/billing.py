"""What was used, and what it costs: seconds of workers with a machine, in buckets of time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from moorage_runpod.testing.problems import Problem, bad_request

_NOTHING = {"totalAmount": 0.0, "gpuAmount": 0.0, "cpuAmount": 0.0, "diskAmount": 0.0, "feeAmount": 0.0}
_DEFAULT_DAYS = 30


@dataclass(slots=True)
class Usage:
    """One worker, from its start on. `price` in USD per hour; `until` None while it runs."""

    account: str
    endpoint_id: str
    price: float
    since: float
    until: float | None = None


class Meter:
    def __init__(self) -> None:
        self._usages: list[Usage] = []

    def start(self, account: str, endpoint_id: str, price: float, now: float) -> Usage:
        usage = Usage(account, endpoint_id, price, now)
        self._usages.append(usage)
        return usage

    def bill(
        self, account: str, query: Mapping[str, str], now: float
    ) -> dict[str, Any]:  # Any: a JSON object
        """The answer of GET /v2/billing/serverless. Raises Problem for a query that cannot be."""
        start, end, size = _range(query, datetime.fromtimestamp(now, UTC))
        wanted = query.get("serverlessId")
        records: list[dict[str, Any]] = [  # Any: JSON objects
            {"startTime": _z(begin), "endTime": _z(close), "serverlessId": endpoint_id, **amounts}
            for begin, close in _buckets(start, end, size)
            for endpoint_id, amounts in self._amounts(account, begin, close, now).items()
            if wanted in (None, endpoint_id)
        ]
        totals = {name: sum(r[name] for r in records) for name in _NOTHING}
        asked = {"startTime": _z(start), "endTime": _z(end), "bucketSize": size, "serverlessId": wanted}
        metadata = {
            "query": asked,
            "recordCount": len(records),
            "uniqueServerlessCount": len({r["serverlessId"] for r in records}),
            "totals": totals,
        }
        return {"records": records, "metadata": metadata}

    def _amounts(
        self, account: str, begin: datetime, end: datetime, now: float
    ) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for usage in self._usages:
            until = now if usage.until is None else usage.until
            seconds = min(until, end.timestamp()) - max(usage.since, begin.timestamp())
            if usage.account != account or seconds <= 0:
                continue
            amounts = found.setdefault(usage.endpoint_id, dict(_NOTHING))
            amounts["gpuAmount"] += usage.price * seconds / 3600
            amounts["totalAmount"] = amounts["gpuAmount"]
        return found


def _range(query: Mapping[str, str], now: datetime) -> tuple[datetime, datetime, str]:
    size = query.get("bucketSize", "day")
    if "lastN" in query:
        if "startTime" in query or "endTime" in query:
            raise bad_request("lastN and startTime/endTime are mutually exclusive")
        start = _floor(now, size)
        for _ in range(int(query["lastN"]) - 1):
            start = _floor(start - timedelta(seconds=1), size)
        return start, _next(_floor(now, size), size), size
    start = _time(query["startTime"]) if "startTime" in query else now - timedelta(days=_DEFAULT_DAYS)
    end = _time(query["endTime"]) if "endTime" in query else now
    if end <= start:
        raise bad_request("startTime must be before endTime")
    ceiling = _floor(end, size)
    return _floor(start, size), ceiling if ceiling == end else _next(ceiling, size), size


def _buckets(start: datetime, end: datetime, size: str) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        following = _next(start, size)
        yield start, following
        start = following


def _floor(at: datetime, size: str) -> datetime:
    hour = at.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    match size:
        case "hour":
            return hour
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
        case _:
            return day


def _next(start: datetime, size: str) -> datetime:
    longest = {"hour": 1 / 24, "day": 1, "week": 7, "month": 31, "year": 366}[size]
    return _floor(start + timedelta(days=longest), size)


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Problem(422, f"{text} is not an RFC 3339 time") from error
    return at.astimezone(UTC)


def _z(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
