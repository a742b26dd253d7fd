"""Plans and settings that tests begin from."""

from __future__ import annotations

import json
from pathlib import Path

from moorage.domain.compute import GIB, Availability, Offer
from moorage.domain.model import ContainerImage, HubModel, Source
from moorage.domain.workload import HealthCheck, Ports, Resources, Workload
from moorage.ports.provider import ProviderConfig, RevisionPlan
from moorage_kubernetes.settings import KubernetesSettings

INSTALLATION = "inst_tests"
NAMESPACE = "moorage"
MODEL = HubModel("acme/writer", "0" * 40)
IMAGE = ContainerImage("registry.example.com/acme/served:1.0")
GROUP = {"cloud.google.com/gke-nodepool": "cpu"}
PORTS = Ports(http=8200)
HEALTH = HealthCheck("/health", 8200, initial_delay=0, period=1, timeout=1)
SMALL = Resources(cpu_request=0.5, cpu_limit=1, memory_request=GIB, memory_limit=2 * GIB)


def config(**environ: str) -> ProviderConfig:
    named = {f"MOORAGE_KUBERNETES_{name}": value for name, value in environ.items()}
    return ProviderConfig(Path("unused"), named, installation=INSTALLATION)


def settings(**environ: str) -> KubernetesSettings:
    return KubernetesSettings.read(config(**environ))


def offer(gpus: int = 0) -> Offer:
    return Offer(
        id="ngp_tests",
        provider="kubernetes",
        gpu="L4" if gpus else None,
        count=gpus,
        memory_bytes=24 * GIB,
        usable_bytes=22 * GIB,
        price_per_hour=0.5,
        price_source="made up for tests",
        price_as_of="2026-11-21",
        availability=Availability.HIGH,
        ref={"selector": json.dumps(GROUP), "gpus": str(gpus), "node_group": "ngp_tests"},
    )


def workload(**more: object) -> Workload:
    """Of an imported container."""
    base: dict[str, object] = {"resources": SMALL, "ports": PORTS, "health": HEALTH}
    return Workload(**{**base, **more})  # type: ignore[arg-type]  # the caller gives the types of the fields


def plan(
    source: Source = MODEL,
    *,
    replicas: int = 1,
    max_replicas: int = 1,
    gpus: int = 0,
    workload: Workload | None = None,
    env: dict[str, str] | None = None,
    deployment_id: str = "dep_tests",
) -> RevisionPlan:
    return RevisionPlan(
        deployment_id=deployment_id,
        organization_id="org_tests",
        revision=1,
        source=source,
        runtime="onnx" if isinstance(source, HubModel) else "image",
        offer=offer(gpus),
        replicas=replicas,
        max_replicas=max(replicas, max_replicas),
        memory_bytes=GIB if isinstance(source, HubModel) else 0,
        task="text-generation",
        env=env or {},
        workload=workload,
    )


def image_plan(**more: object) -> RevisionPlan:
    """Of an imported container, with the rest of its workload."""
    replicas = {
        k: more.pop(k) for k in ("replicas", "max_replicas", "gpus", "env", "deployment_id") if k in more
    }
    return plan(IMAGE, workload=workload(**more), **replicas)  # type: ignore[arg-type]  # as above
