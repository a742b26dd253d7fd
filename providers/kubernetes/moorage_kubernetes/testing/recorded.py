"""What came in: a test asks which calls a client made, and of what kind."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class SeenRequest:
    """`status` is None while it is not answered, and where it never was. Secrets are not kept."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str
    user: str | None = None
    status: int | None = None
    refusal: str = ""

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    def __str__(self) -> str:
        return f"{self.name} {self.content_type}".rstrip()


@dataclass(slots=True)
class Records:
    """`refused` are requests whose objects broke a schema or a rule; `broken` are faults of this server."""

    requests: list[SeenRequest] = field(default_factory=list)
    refused: list[SeenRequest] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
