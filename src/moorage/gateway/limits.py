"""How much and how long: what the gateway allows one request, and what it says when a deadline passes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from moorage.gateway.problems import GatewayTimeout, RequestTimeout


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    body_bytes: int = 64 * 1024 * 1024
    upload: float = 300.0  # until the caller's body has arrived
    wake: float = 60.0  # for a deployment that sleeps to have a replica
    connect: float = 2.0  # for one replica
    answer: float = 120.0  # from the body's end to the head of the answer
    stream: float = 900.0  # from the head of the answer to its end


class Lateness:
    """What to say when a deadline passes; made once, because a deadline is set thrice a request."""

    __slots__ = ("answer", "stream", "upload")

    def __init__(self, limits: Limits) -> None:
        self.upload = partial(RequestTimeout, f"The body did not arrive within {limits.upload:g} seconds.")
        self.answer = partial(
            GatewayTimeout, f"The replica did not begin to answer within {limits.answer:g} seconds."
        )
        self.stream = partial(GatewayTimeout, f"The answer was not complete after {limits.stream:g} seconds.")
