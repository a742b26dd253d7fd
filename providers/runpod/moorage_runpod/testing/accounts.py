"""Who may do what: accounts with several keys, each with scopes of its own, and an account's rate limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from moorage_runpod.testing.problems import Problem, rate_limited

EVERYTHING = frozenset({"*"})
_AREAS = ("serverless", "templates", "network-volumes", "catalog", "billing")
_WINDOWS = {"minute": 60, "hour": 3600, "day": 86400}


@dataclass(slots=True)
class Account:
    """`keys` are key -> scopes such as `serverless:write`, `catalog:read`, `jobs:write`; `*` is all of them.

    `limits` are requests a window of `minute`, `hour` and `day`."""

    name: str
    keys: dict[str, frozenset[str]] = field(repr=False)
    workers_quota: int = 100
    limits: Mapping[str, int] = field(
        default_factory=lambda: {"minute": 6000, "hour": 300_000, "day": 5_000_000}
    )
    used: dict[str, tuple[int, int]] = field(
        default_factory=dict, repr=False
    )  # window: (which one, requests)

    def count(self, now: float) -> None:
        """Counts one request. Raises the 429 of the first window that is used up."""
        left = self.left(now)
        for window, (remaining, opens) in left.items():
            if remaining <= 0:
                raise rate_limited(opens, window)
        for window, length in _WINDOWS.items():
            number = int(now // length)
            which, requests = self.used.get(window, (number, 0))
            self.used[window] = (number, requests + 1 if which == number else 1)

    def left(self, now: float) -> dict[str, tuple[int, int]]:
        """By window: (requests left, seconds until it opens again)."""
        told = {}
        for window, length in _WINDOWS.items():
            number = int(now // length)
            which, requests = self.used.get(window, (number, 0))
            remaining = self.limits[window] - (requests if which == number else 0)
            told[window] = (max(0, remaining), max(1, math.ceil((number + 1) * length - now)))
        return told

    def headers(self, now: float) -> dict[str, str]:
        left = self.left(now).items()
        return {
            "ratelimit": ", ".join(f'"{w}";r={remaining};t={opens}' for w, (remaining, opens) in left),
            "ratelimit-policy": ", ".join(f'"{w}";q={self.limits[w]};w={n}' for w, n in _WINDOWS.items()),
        }


def scope_of(method: str, path: str) -> str:
    """The scope that a request needs: `serverless:read`."""
    area = path.removeprefix("/v2/").partition("/")[0]
    access = "read" if method in ("GET", "HEAD") else "write"
    return f"{area if area in _AREAS else 'jobs'}:{access}"


def authenticate(accounts: Iterable[Account], header: str, *, bare: bool = False) -> tuple[Account, str]:
    """(account, key) of an Authorization header; the job API takes the key without `Bearer` too.

    Raises 401."""
    kind, _, key = header.partition(" ")
    if bare and not key:
        kind, key = "Bearer", kind
    if kind != "Bearer" or not key.strip():
        raise Problem(401, "missing bearer token")
    for account in accounts:
        if key.strip() in account.keys:
            return account, key.strip()
    raise Problem(401, "invalid bearer token")


def authorize(account: Account, key: str, scope: str, denied: frozenset[str]) -> None:
    """Raises 403 where the key lacks `scope`."""
    scopes = account.keys[key]
    if scope in denied or "*" in denied or not scopes & {"*", scope}:
        raise Problem(403, "access denied")
