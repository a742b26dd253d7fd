"""Rows to try a store with. The number of a row gives its id, and the seconds after NOW at which it was made
and is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.compute import Estimate, Offer, Rung
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Attempt, Deployment, DeploymentSpec, Phase, Status
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, ProviderCredential, Role, User
from moorage.domain.job import Job, JobPayload, JobPolicy, input_id
from moorage.domain.model import ContainerImage, HubModel
from moorage.domain.model_version import ImportState, ModelKind, ModelVersion
from moorage.ports.store import Lease, Store

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def lease(token: str, seconds: float = 30) -> Lease:
    return Lease(token, after(seconds))


def deployment(number: int = 1, organization: str = "org_a", phase: Phase = Phase.READY) -> Deployment:
    at = after(number)
    return Deployment(
        id=f"dep_{number:04d}",
        organization_id=organization,
        name=f"name-{number}",
        spec=DeploymentSpec(HubModel("acme/digits", "main")),
        status=Status(phase, at, seeking_since=at),
        created_at=at,
        created_by="usr_1",
        due_at=at,
    )


def at_home(row: Deployment, machine: str) -> Deployment:
    """The row with an endpoint that only a process on that machine can look after."""
    offer = Offer("local", "fake", None, 0, 1, 1, 0.1, "made up", "2026-01-01", home=machine)
    rung = Rung(offer, "onnx", Estimate(1, 0.1, ()))
    attempt = Attempt(1, rung, f"mrg-{row.id}", row.created_at)
    return replace(row, status=replace(row.status, attempt=attempt))


def in_phase(row: Deployment, phase: Phase) -> Deployment:
    return replace(row, status=replace(row.status, phase=phase))


def delivery(number: int = 1, organization: str = "org_a", subject: str = "dep_0001") -> Delivery:
    at = after(number)
    return Delivery(
        f"msg_{number:04d}",
        organization,
        subject,
        "deployment.ready",
        "https://a.example",
        "{}",
        at,
        due_at=at,
    )


def job(
    number: int = 1, deployment: str = "dep_0001", organization: str = "org_a", *, low_priority: bool = False
) -> Job:
    """One that lives for an hour."""
    at = after(number)
    policy = JobPolicy(ttl=3600.0, low_priority=low_priority)
    return Job(f"job-{number:04d}", organization, deployment, at, policy=policy, size=10, due_at=at)


def job_input(number: int = 1) -> JobPayload:
    return JobPayload(input_id(f"job-{number:04d}"), '{"inputs":1}')


def event(number: int = 1, subject: str = "dep_0001") -> Event:
    return Event(f"evt_{number:04d}", "org_a", subject, "deployment.ready", after(number), "engine", "ready")


def api_key(number: int = 1, organization: str = "org_a") -> ApiKey:
    return ApiKey(
        f"key_{number}", organization, "ci", Role.DEPLOYER, f"{number:064x}", "mrg_ab", after(number), "usr_1"
    )


def credential(number: int = 1, organization: str = "org_a", provider: str = "runpod") -> ProviderCredential:
    id_ = f"crd_{number}"
    return ProviderCredential(id_, organization, provider, "main", "sealed", "rpa_…", after(number), "usr_1")


def cluster(number: int = 1, organization: str = "org_a") -> Cluster:
    return Cluster(
        f"cls_{number:04d}",
        organization,
        f"name-{number}",
        "kubernetes",
        f"crd_{number}",
        "https://k8s.example:6443",
        after(number),
        "usr_1",
    )


def node_group(number: int = 1, organization: str = "org_a", cluster_id: str = "cls_0001") -> NodeGroup:
    selector = {"pool": f"pool-{number}"}
    return NodeGroup(
        f"ngp_{number:04d}",
        organization,
        cluster_id,
        "gpu",
        selector,
        discovered=True,
        created_at=after(number),
    )


def model_version(number: int = 1, organization: str = "org_a") -> ModelVersion:
    return ModelVersion(
        f"mdl_{number:04d}",
        organization,
        f"name-{number}",
        "1.0",
        ModelKind.IMPORTED_CONTAINER,
        ContainerImage("registry.example/digits:1"),
        ImportState.SUCCESS,
        after(number),
        "usr_1",
    )


def user(number: int = 1, username: str = "ada") -> User:
    return User(f"usr_{number}", "org_a", username, "$argon2id$…", Role.OWNER, NOW)


async def read_deployment(store: Store, id_: str = "dep_0001") -> Deployment:
    """The row, which must be there."""
    found = await store.deployment(id_)
    assert found is not None
    return found
