"""A deployment as it reads: the one shape for the API, the webhooks and the command line.

Plain data of JSON types, so that the bytes that are signed are the bytes that a client would have read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

from moorage.domain.compute import Bill, Estimate, Offer, Placement, RefusedOffer
from moorage.domain.deployment import Condition, Deployment, Phase
from moorage.domain.model import ContainerImage, HubModel, Source, UploadedModel


class ConditionView(TypedDict):
    type: str
    status: str
    reason: str
    message: str
    since: str


class ReplicasView(TypedDict):
    desired: int
    ready: int


class ItemView(TypedDict):
    name: str
    bytes: int
    how: str


class EstimateView(TypedDict):
    total_bytes: int
    min_vram_gb: float
    items: list[ItemView]


class ErrorView(TypedDict):
    code: str
    detail: str
    advice: str | None


class CostView(TypedDict):
    accrued: float
    currency: str


class LoadingView(TypedDict):
    """What a worker said of itself last."""

    state: str
    stage: str | None
    percent: float | None
    load_seconds: float | None
    from_cache: bool | None
    cause: str | None
    at: str


class BillView(TypedDict):
    """What the provider says that it charged."""

    amount: float
    since: str
    until: str


class DeploymentCostView(TypedDict):
    deployment_id: str
    currency: str
    accrued: float
    per_hour_now: float
    price_per_hour: float | None
    price_source: str | None
    price_as_of: str | None
    billed: BillView | None
    billed_unknown: str | None


class OfferView(TypedDict):
    provider: str
    id: str
    gpu: str | None
    count: int
    memory_gb: float
    region: str | None
    price_per_hour: float
    price_source: str
    price_as_of: str
    spot: bool
    availability: str
    note: str | None


class MarketView(TypedDict):
    items: list[OfferView]
    refused: list[RefusedView]


class DeploymentView(TypedDict):
    deployment_id: str
    name: str
    status: str
    conditions: list[ConditionView]
    provider: str | None
    hf_model_id: str | None
    model_id: str | None
    container_image: str | None
    revision: str | None
    task: str | None
    runtime: str | None
    endpoint_url: str | None
    jobs_url: str | None
    gpu_allocated: str | None
    gpu_count: int
    region: str | None
    price_per_hour: float | None
    cost: CostView
    replicas: ReplicasView
    estimate: EstimateView | None
    error: ErrorView | None
    attempts: int
    phase_durations: dict[str, float]
    env: list[str]
    cache_scope: str
    loading: LoadingView | None
    user_webhook_url: str | None
    created_at: str
    ready_at: str | None


class RungView(TypedDict):
    provider: str
    gpu: str | None
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


class RefusedView(TypedDict):
    provider: str
    gpu: str | None
    count: int
    reason: str
    smallest_change: str | None
    region: str | None
    price_per_hour: float | None


class PlanView(TypedDict):
    estimate: EstimateView | None
    ladder: list[RungView]
    refused: list[RefusedView]


def instant(at: datetime) -> str:
    """RFC 3339, UTC, microseconds."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def deployment_view(deployment: Deployment, now: datetime, public_url: str) -> DeploymentView:
    """`public_url` is the base under which this service is reached, without a final slash."""
    spec, status = deployment.spec, deployment.status
    attempt, profile, source = status.attempt, status.profile, spec.source
    offer = None if attempt is None else attempt.rung.offer
    serves = status.phase is Phase.READY and deployment.deleted_at is None
    wanted = spec.policy.provider
    return {
        "deployment_id": deployment.id,
        "name": deployment.name,
        "status": deployment.phase.value,
        "conditions": [_condition(c) for c in status.conditions],
        "provider": offer.provider if offer else (None if wanted == "auto" else wanted),
        "hf_model_id": source.repo_id if isinstance(source, HubModel) else None,
        "model_id": source.model_id if isinstance(source, UploadedModel) else None,
        "container_image": source.image if isinstance(source, ContainerImage) else None,
        "revision": profile.revision if profile else _asked_revision(source),
        "task": spec.task or (profile.task if profile else None),
        "runtime": attempt.rung.runtime if attempt else None,
        "endpoint_url": f"{public_url}/v1/models/{deployment.id}/infer" if serves else None,
        "jobs_url": f"{public_url}/v2/{deployment.id}" if serves else None,
        "gpu_allocated": offer.gpu if offer else None,
        "gpu_count": offer.count if offer else 0,
        "region": offer.region if offer else spec.policy.region,
        "price_per_hour": offer.price_per_hour if offer else None,
        "cost": {"accrued": round(status.meter.at(now), 9), "currency": "USD"},
        "replicas": {"desired": max(1, spec.min_replicas), "ready": status.replicas.ready},
        "estimate": estimate_view(status.estimate),
        "error": _error(deployment),
        "attempts": status.attempts,
        "phase_durations": _durations(deployment, now),
        "env": list(spec.env_names),
        "cache_scope": spec.cache.scope.value,
        "loading": _loading(deployment),
        "user_webhook_url": spec.webhook_url,
        "created_at": instant(deployment.created_at),
        "ready_at": instant(status.ready_at) if status.ready_at else None,
    }


def _asked_revision(source: Source) -> str | None:
    return source.revision if isinstance(source, HubModel) else None


def _condition(condition: Condition) -> ConditionView:
    return {
        "type": condition.type.value,
        "status": condition.status.value,
        "reason": condition.reason,
        "message": condition.message,
        "since": instant(condition.since),
    }


def _loading(deployment: Deployment) -> LoadingView | None:
    """Of the present attempt; what workers of an earlier one said is no news."""
    report, attempt = deployment.report, deployment.status.attempt
    if report is None or attempt is None or report.endpoint != attempt.name:
        return None
    return {
        "state": report.state.value,
        "stage": report.stage,
        "percent": report.percent,
        "load_seconds": report.load_seconds,
        "from_cache": report.from_cache,
        "cause": report.cause,
        "at": instant(report.at),
    }


def _error(deployment: Deployment) -> ErrorView | None:
    failure = deployment.status.failure
    if failure is None:
        return None
    return {"code": failure.code, "detail": failure.detail, "advice": failure.advice}


def _durations(deployment: Deployment, now: datetime) -> dict[str, float]:
    """Seconds spent in each phase, the present one included unless it is final."""
    status = deployment.status
    durations = dict(status.phase_seconds)
    if status.phase not in (Phase.DELETED, Phase.FAILED):
        phase = status.phase.value
        durations[phase] = durations.get(phase, 0.0) + (now - status.phase_since).total_seconds()
    return {phase: round(seconds, 3) for phase, seconds in durations.items()}


def estimate_view(estimate: Estimate | None) -> EstimateView | None:
    if estimate is None:
        return None
    return {
        "total_bytes": estimate.total_bytes,
        "min_vram_gb": estimate.min_vram_gb,
        "items": [{"name": i.name, "bytes": i.bytes, "how": i.how} for i in estimate.items],
    }


def offer_view(offer: Offer) -> OfferView:
    return {
        "provider": offer.provider,
        "id": offer.id,
        "gpu": offer.gpu,
        "count": offer.count,
        "memory_gb": round(offer.memory_bytes / 1e9, 1),
        "region": offer.region,
        "price_per_hour": offer.price_per_hour,
        "price_source": offer.price_source,
        "price_as_of": offer.price_as_of,
        "spot": offer.spot,
        "availability": offer.availability.value,
        "note": offer.note,
    }


def refused_view(refused: RefusedOffer) -> RefusedView:
    return {
        "provider": refused.provider,
        "gpu": refused.gpu,
        "count": refused.count,
        "reason": refused.reason,
        "smallest_change": refused.smallest_change,
        "region": refused.region,
        "price_per_hour": refused.price_per_hour,
    }


def plan_view(placement: Placement, estimate: Estimate | None) -> PlanView:
    return {
        "estimate": estimate_view(estimate),
        "ladder": [
            {
                "provider": rung.offer.provider,
                "gpu": rung.offer.gpu,
                "count": rung.offer.count,
                "memory_gb": round(rung.offer.memory_bytes / 1e9, 1),
                "region": rung.offer.region,
                "price_per_hour": rung.offer.price_per_hour,
                "price_source": rung.offer.price_source,
                "price_as_of": rung.offer.price_as_of,
                "spot": rung.offer.spot,
                "availability": rung.offer.availability.value,
                "runtime": rung.runtime,
                "note": rung.offer.note,
            }
            for rung in placement.ladder
        ],
        "refused": [refused_view(refused) for refused in placement.refused],
    }


def market_view(offers: Sequence[Offer], refused: Sequence[RefusedOffer]) -> MarketView:
    ranked = sorted(offers, key=lambda offer: (offer.price_per_hour, offer.provider, offer.id))
    return {
        "items": [offer_view(offer) for offer in ranked],
        "refused": [refused_view(one) for one in refused],
    }


def cost_view(
    deployment: Deployment, bill: Bill | None, billed_unknown: str | None, now: datetime
) -> DeploymentCostView:
    meter, attempt = deployment.status.meter, deployment.status.attempt
    offer = None if attempt is None else attempt.rung.offer
    return {
        "deployment_id": deployment.id,
        "currency": "USD",
        "accrued": round(meter.at(now), 9),
        "per_hour_now": round(meter.per_hour if meter.since is not None else 0.0, 6),
        "price_per_hour": offer.price_per_hour if offer else None,
        "price_source": offer.price_source if offer else None,
        "price_as_of": offer.price_as_of if offer else None,
        "billed": None
        if bill is None
        else {"amount": bill.amount, "since": instant(bill.since), "until": instant(bill.until)},
        "billed_unknown": billed_unknown,
    }
