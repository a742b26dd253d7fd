"""What came in, kept so that a test can say what was sent, and that all of it was valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage_runpod.testing.changes import Changes

_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


@dataclass(slots=True)
class SeenRequest:
    """`route` is the path's template; `errors` is what RunPod's document does not allow about the request.

    `status` None: no answer was sent (yet)."""

    method: str
    path: str
    route: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = field(repr=False)  # Any: JSON of the client; it may hold secrets, in env
    account: str | None = None
    errors: tuple[str, ...] = ()
    status: int | None = None
    at: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.method} {self.route}"

    @property
    def valid(self) -> bool:
        return not self.errors

    def as_json(self) -> dict[str, Any]:  # Any: a JSON object
        return {
            "method": self.method,
            "path": self.path,
            "route": self.route,
            "query": dict(self.query),
            "headers": dict(self.headers),
            "body": self.body,
            "account": self.account,
            "errors": list(self.errors),
            "status": self.status,
            "at": self.at,
        }


class Records:
    """`broken_answers` says where the fake itself broke the document; it must stay empty."""

    def __init__(self) -> None:
        self.requests: list[SeenRequest] = []
        self.broken_answers: list[str] = []
        self.changes = Changes()

    def add(self, seen: SeenRequest) -> None:
        self.requests.append(seen)
        self.changes.tell()

    @property
    def invalid(self) -> list[SeenRequest]:
        return [r for r in self.requests if not r.valid]


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}
