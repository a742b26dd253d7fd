"""Plans and settings that tests begin from."""

from __future__ import annotations

from pathlib import Path

from moorage.domain.compute import Availability, Offer, Serverless
from moorage.domain.model import HubModel, Source
from moorage.ports.provider import ProviderConfig, RevisionPlan
from moorage_runpod.settings import RunPodSettings

INSTALLATION = "inst_tests"
NO_WISH = Serverless()
MODEL = HubModel("acme/painter", "0" * 40)


def settings(hub_url: str = "https://huggingface.co", **environ: str) -> RunPodSettings:
    named = {f"MOORAGE_RUNPOD_{name}": value for name, value in environ.items()}
    return RunPodSettings.read(
        ProviderConfig(Path("unused"), named, hub_url=hub_url, installation=INSTALLATION)
    )


def offer(offer_id: str = "AMPERE_24") -> Offer:
    return Offer(
        id=offer_id,
        provider="runpod",
        gpu="L4",
        count=1,
        memory_bytes=24 * 1024**3,
        usable_bytes=22 * 1024**3,
        price_per_hour=0.69,
        price_source="made up for tests",
        price_as_of="2026-11-21",
        availability=Availability.HIGH,
        by_running=True,
    )


def plan(
    source: Source = MODEL,
    *,
    pool: str = "AMPERE_24",
    replicas: int = 1,
    serverless: Serverless = NO_WISH,
    **env: str,
) -> RevisionPlan:
    return RevisionPlan(
        deployment_id="dep_x",
        organization_id="org_x",
        revision=1,
        source=source,
        runtime="diffusers" if isinstance(source, HubModel) else "image",
        offer=offer(pool),
        replicas=replicas,
        memory_bytes=12 * 10**9,
        task="text-to-image",
        env=env,
        serverless=serverless,
    )
