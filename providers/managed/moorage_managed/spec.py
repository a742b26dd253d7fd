"""What a supervisor is told: the desired state of one endpoint, as one file.

The file is the reservation too: memory counts as taken from the moment it is in place. It may hold secrets
(the worker's environment), so it is written with mode 0600 and goes with the endpoint's folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from moorage.domain.retry import Backoff

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Timings:
    """How patient a supervisor is, in seconds."""

    ready_probe: float = 1.5  # between two looks at a replica that answers
    unhealthy_after: float = 15.0  # without a good answer, once it had been ready: restarted
    stop_grace: float = 5.0  # between SIGTERM and SIGKILL
    restart_base: float = 0.5
    restart_cap: float = 30.0

    @property
    def backoff(self) -> Backoff:
        return Backoff(self.restart_base, self.restart_cap)


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint. All byte counts are of one replica."""

    name: str
    offer_id: str
    replicas: int
    command: tuple[str, ...]  # without `--port`, which the supervisor chooses
    memory_bytes: int  # main memory reserved
    memory_limit: int  # main memory after which the kernel steps in
    cpus: float
    gpu: str | None = None  # UUID of the accelerator
    gpu_bytes: int = 0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timings: Timings = Timings()
    host: str = LOOPBACK  # the address that workers listen on, as `command` tells them

    @property
    def worker(self) -> str:
        """The same for specs between which no worker needs to start afresh."""
        return hashlib.sha256(replace(self, replicas=0).to_json().encode()).hexdigest()[:16]

    def url(self, port: int) -> str:
        """Base URL of the replica on that port."""
        return f"http://[{self.host}]:{port}" if ":" in self.host else f"http://{self.host}:{port}"

    def to_json(self) -> str:
        raw = asdict(self)
        if self.host == LOOPBACK:  # as supervisors know it that are older than the choice of an address
            del raw["host"]
        return json.dumps(raw, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> EndpointSpec:
        """Raises ValueError for text that is no spec of ours."""
        raw = json.loads(text)
        try:
            raw["command"] = tuple(raw["command"])
            raw["timings"] = Timings(**raw["timings"])
            return cls(**raw)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an endpoint's spec: {error}") from error
