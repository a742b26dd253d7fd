"""The words of the deployments surface: what it gives. What it takes is in `deployment_requests`."""

from __future__ import annotations

from typing import Annotated, Any  # examples are untyped JSON

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]

DEPLOYMENT_ID = "dep_27k4m6q2x5y3zj7abcdefghijk"


class Accepted(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"deployment_id": DEPLOYMENT_ID, "name": "digits-ghijk2", "status": "validating"}]
        }
    )
    deployment_id: str
    name: str
    status: str


class ConditionDocument(BaseModel):
    type: str
    status: str
    reason: str
    message: str
    since: str


class Replicas(BaseModel):
    desired: int
    ready: int


class Item(BaseModel):
    name: str
    bytes: int
    how: str


class EstimateDocument(BaseModel):
    total_bytes: int
    min_vram_gb: float
    items: list[Item]


class LoadingDocument(BaseModel):
    state: str = Field(description="`loading`, `ready` or `failed`.")
    stage: str | None
    percent: float | None
    load_seconds: float | None
    from_cache: bool | None
    cause: str | None
    at: str


class ErrorDocument(BaseModel):
    code: str
    detail: str
    advice: str | None


class Cost(BaseModel):
    accrued: float = Field(description="So far, in `currency`.")
    currency: str


DEPLOYMENT: dict[str, Any] = {
    "deployment_id": DEPLOYMENT_ID,
    "name": "digits-ghijk2",
    "status": "ready",
    "conditions": [
        {
            "type": "Serving",
            "status": "true",
            "reason": "AllReplicas",
            "message": "It answers.",
            "since": "2026-11-21T09:00:04.120000Z",
        }
    ],
    "provider": "managed",
    "hf_model_id": "moorage/digits",
    "model_id": None,
    "container_image": None,
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "task": "image-classification",
    "runtime": "onnx",
    "endpoint_url": f"http://127.0.0.1:8080/v1/models/{DEPLOYMENT_ID}/infer",
    "jobs_url": f"http://127.0.0.1:8080/v2/{DEPLOYMENT_ID}",
    "gpu_allocated": None,
    "gpu_count": 0,
    "region": None,
    "price_per_hour": 0.05,
    "cost": {"accrued": 0.00004, "currency": "USD"},
    "replicas": {"desired": 1, "ready": 1},
    "estimate": {
        "total_bytes": 220_000_000,
        "min_vram_gb": 1.0,
        "items": [{"name": "weights", "bytes": 40_000, "how": "size of onnx/model.onnx"}],
    },
    "error": None,
    "attempts": 1,
    "phase_durations": {"validating": 0.02, "loading_model": 1.1, "ready": 2.0},
    "env": [],
    "cache_scope": "off",
    "loading": None,
    "user_webhook_url": None,
    "created_at": "2026-11-21T09:00:03.000000Z",
    "ready_at": "2026-11-21T09:00:04.120000Z",
}


class DeploymentDocument(BaseModel):
    model_config = ConfigDict(protected_namespaces=(), json_schema_extra={"examples": [DEPLOYMENT]})
    deployment_id: str
    name: str
    status: str
    conditions: list[ConditionDocument]
    provider: str | None
    hf_model_id: str | None
    model_id: str | None
    container_image: str | None
    revision: str | None
    task: str | None
    runtime: str | None
    endpoint_url: str | None
    jobs_url: str | None = Field(description="Base of `/run`, `/runsync`, `/status/{job}` and the like.")
    gpu_allocated: str | None
    gpu_count: int
    region: str | None
    price_per_hour: float | None
    cost: Cost
    replicas: Replicas
    estimate: EstimateDocument | None
    error: ErrorDocument | None
    attempts: int
    phase_durations: dict[str, float]
    env: list[str] = Field(description="Names only; values are sealed.")
    cache_scope: str
    loading: LoadingDocument | None = Field(description="What a worker said of itself last.")
    user_webhook_url: str | None
    created_at: str
    ready_at: str | None


class DeploymentList(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [DEPLOYMENT], "next_cursor": None}]},
    )
    items: list[DeploymentDocument]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class Rung(BaseModel):
    provider: str
    gpu: str | None = Field(description="null for a CPU offer.")
    count: int
    memory_gb: float
    region: str | None
    price_per_hour: float
    price_source: str
    price_as_of: str
    spot: bool
    availability: str
    runtime: str
    note: str | None


class Refused(BaseModel):
    provider: str
    gpu: str | None
    count: int
    reason: str
    smallest_change: str | None = Field(description="Of the request, that would make it do.")
    region: str | None
    price_per_hour: float | None


class PlanDocument(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "estimate": {
                        "total_bytes": 220_000_000,
                        "min_vram_gb": 1.0,
                        "items": [{"name": "weights", "bytes": 40_000, "how": "size of onnx/model.onnx"}],
                    },
                    "ladder": [
                        {
                            "provider": "managed",
                            "gpu": None,
                            "count": 0,
                            "memory_gb": 25.0,
                            "region": None,
                            "price_per_hour": 0.05,
                            "price_source": "the operator's setting",
                            "price_as_of": "2026-11-21",
                            "spot": False,
                            "availability": "high",
                            "runtime": "onnx",
                            "note": "21.0 of 23.0 GB free",
                        }
                    ],
                    "refused": [],
                }
            ]
        }
    )
    estimate: EstimateDocument | None
    ladder: list[Rung]
    refused: list[Refused]


class Bill(BaseModel):
    amount: float
    since: str
    until: str


class CostDocument(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "deployment_id": DEPLOYMENT_ID,
                    "currency": "USD",
                    "accrued": 0.00004,
                    "per_hour_now": 0.05,
                    "price_per_hour": 0.05,
                    "price_source": "the operator's setting",
                    "price_as_of": "2026-11-21",
                    "billed": None,
                    "billed_unknown": "managed does not tell what it charged.",
                }
            ]
        }
    )
    deployment_id: str
    currency: str
    accrued: float = Field(description="Measured here: billed replicas, by the hour and the offer's price.")
    per_hour_now: float
    price_per_hour: float | None = Field(description="Of one replica; null while nothing is created.")
    price_source: str | None
    price_as_of: str | None
    billed: Bill | None = Field(description="What the provider says that it charged.")
    billed_unknown: str | None = Field(description="Why `billed` is null.")


class OfferDocument(BaseModel):
    provider: str
    id: str
    gpu: str | None = Field(description="null for a CPU offer.")
    count: int
    memory_gb: float
    region: str | None
    price_per_hour: float
    price_source: str
    price_as_of: str
    spot: bool
    availability: str = Field(description="`none`, `low`, `medium`, `high` or `unknown`.")
    note: str | None


class MarketDocument(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "provider": "runpod",
                            "id": "AMPERE_24",
                            "gpu": "L4",
                            "count": 1,
                            "memory_gb": 25.8,
                            "region": None,
                            "price_per_hour": 0.69,
                            "price_source": "the provider's catalog, live",
                            "price_as_of": "2026-11-21",
                            "spot": False,
                            "availability": "high",
                            "note": None,
                        }
                    ],
                    "refused": [],
                }
            ]
        }
    )
    items: list[OfferDocument] = Field(description="Cheapest first.")
    refused: list[Refused] = Field(description="Providers that sell you nothing now, and why.")


class EventDocument(BaseModel):
    id: str
    type: str
    at: str
    actor: str
    message: str
    data: dict[str, str | int | float | bool | None]


EVENT_ID = "evt_27k4m6q2x5y3zj7abcdefghijk"


class EventList(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "id": EVENT_ID,
                            "type": "deployment.ready",
                            "at": "2026-11-21T09:00:04.120000Z",
                            "actor": "engine",
                            "message": "It answers.",
                            "data": {"provider": "managed", "price_per_hour": 0.05},
                        }
                    ],
                    "next_after": EVENT_ID,
                }
            ]
        }
    )
    items: list[EventDocument]
    next_after: str | None = Field(description="Give it as `after` to read on.")


class LogLineDocument(BaseModel):
    at: str
    replica: str
    text: str


class LogList(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"items": [{"at": "2026-11-21T09:00:03.900000Z", "replica": "0", "text": "model loaded"}]}
            ]
        }
    )
    items: list[LogLineDocument]
