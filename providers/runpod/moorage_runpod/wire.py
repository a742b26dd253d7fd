"""What RunPod answers, as typed values: of each answer only what this provider reads.

Fields that are not named here are ignored, so that RunPod may add some; what is named must be there in its
form, or the answer is garbage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AliasGenerator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

# Times without a zone have been seen; they are UTC.
Time = Annotated[datetime, AfterValidator(lambda t: t.replace(tzinfo=UTC) if t.tzinfo is None else t)]


class Wire(BaseModel):
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        alias_generator=AliasGenerator(validation_alias=to_camel),
    )


class RequestUrls(Wire):
    """Those of a queue, or `base` and `health` of a load balancer."""

    run: str | None = None
    run_sync: str | None = None
    status: str | None = None
    health: str
    base: str | None = None


class Workers(Wire):
    min: int
    max: int
    idle_timeout: int | None = None


class GpuChoice(Wire):
    pools: tuple[str, ...]
    count: int = 1


class Endpoint(Wire):
    id: str
    name: str
    created_at: Time
    request_urls: RequestUrls | None = None
    image: str | None = None
    disk: int | None = None
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    ports: tuple[str, ...] = ()
    registry: str | None = None
    gpu: GpuChoice | None = None
    workers: Workers
    # Compared with what is asked for, never looked into.
    scaling: Mapping[str, Any]
    data_center_ids: tuple[str, ...] = ()
    network_volumes: tuple[str, ...] = ()
    timeout: int
    flashboot: str

    @property
    def balanced(self) -> bool:
        """Whether requests go straight to the workers, without a queue."""
        return self.request_urls is not None and self.request_urls.base is not None


class Endpoints(Wire):
    endpoints: tuple[Endpoint, ...]


class Worker(Wire):
    id: str
    status: str  # RUNNING, IDLE, INITIALIZING, THROTTLED, UNHEALTHY; an open set
    gpu_type_id: str | None = None
    data_center_id: str | None = None
    started_at: Time | None = None

    @property
    def placed(self) -> bool:
        """Whether it was given a machine."""
        return (self.gpu_type_id or self.data_center_id or self.started_at) is not None


class WorkerList(Wire):
    workers: tuple[Worker, ...]


class JobCounts(Wire):
    completed: int = 0
    failed: int = 0
    in_progress: int = 0
    in_queue: int = 0
    retried: int = 0


class WorkerCounts(Wire):
    running: int = 0


class Health(Wire):
    """`GET /health` of the job API."""

    jobs: JobCounts
    workers: WorkerCounts = WorkerCounts()


def _text(value: object) -> object:
    return value if value is None or isinstance(value, str) else json.dumps(value)


class Job(Wire):
    id: str
    status: str  # IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, TIMED_OUT
    error: Annotated[str | None, BeforeValidator(_text)] = None
    worker_id: str | None = None


class Price(Wire):
    serverless: float | None = None


class MaxCount(Wire):
    secure: int = 0
    community: int = 0


class DataCenter(Wire):
    id: str
    availability: str


class GpuType(Wire):
    id: str
    name: str
    pool: str | None
    manufacturer: str = "NVIDIA"
    memory: int  # GB
    price: Price
    max_count: MaxCount = MaxCount()
    availability: str | None = None
    data_centers: tuple[DataCenter, ...] = ()


class GpuTypes(Wire):
    gpus: tuple[GpuType, ...]


class BillingRecord(Wire):
    start_time: Time
    end_time: Time
    total_amount: float


class BillingRecords(Wire):
    records: tuple[BillingRecord, ...]


class LogEvent(Wire):
    ts: Time
    line: str
    source: str = "container"
