"""What a supervisor tells: the observed state of one endpoint, as one file replaced at each change."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from moorage_managed.processes import ProcessId


@dataclass(frozen=True, slots=True)
class ReplicaSnapshot:
    """`state` is a value of `moorage.domain.observation.ReplicaState`."""

    id: str
    state: str
    process: ProcessId | None = None
    port: int | None = None
    restarts: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    shim: ProcessId
    replicas: tuple[ReplicaSnapshot, ...] = ()
    stage: str | None = None
    trouble: str | None = None  # a value of `Trouble`
    message: str | None = None
    log_tail: tuple[str, ...] = ()
    limits: str | None = None  # which mechanism holds the limits, in words
    cgroups: tuple[str, ...] = ()  # folders to remove at the end
    worker: str | None = None  # `EndpointSpec.worker` of what runs; older supervisors do not tell it

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """Raises ValueError for text that is no snapshot of ours."""
        raw = json.loads(text)
        try:
            raw["shim"] = ProcessId(**raw["shim"])
            raw["replicas"] = tuple(_replica(r) for r in raw["replicas"])
            raw["log_tail"] = tuple(raw["log_tail"])
            raw["cgroups"] = tuple(raw["cgroups"])
            return cls(**raw)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a supervisor's snapshot: {error}") from error


# JSON as it was parsed; the caller turns what does not fit into ValueError.
def _replica(raw: dict[str, object]) -> ReplicaSnapshot:
    process = raw.pop("process")
    known = ProcessId(**process) if isinstance(process, dict) else None
    return ReplicaSnapshot(process=known, **raw)  # type: ignore[arg-type]  # checked by the constructor's names
