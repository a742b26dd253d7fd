"""What RunPod does to an endpoint by itself: one that nobody uses for days is left without workers."""

from __future__ import annotations

from dataclasses import replace

from moorage_runpod.testing.cloud import Cloud


def drift(cloud: Cloud, endpoint: str, workers_max: int = 0) -> int:
    """Sets workers.max of every endpoint with this id or name; gives how many there were."""
    found = [e for e in cloud.endpoints.values() if endpoint in (e.id, e.spec.name)]
    for one in found:
        spec = one.spec
        one.spec = replace(spec, workers_max=workers_max, workers_min=min(spec.workers_min, workers_max))
    cloud.wake()
    return len(found)
