"""How long the service itself takes from a refused offer to the next create, the provider's answers apart.

RunPod tells lack of capacity only to who looks: workers stay throttled. The clock starts when the last look
comes in at the (fake) RunPod, and ends when the create on the next pool does. Deleting the endpoint and
confirming its absence lie in between; what RunPod takes to answer is part of the figure, and small here.

    python -m benchmarks.ladder
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import uvloop

from benchmarks.service import service
from benchmarks.table import Row, table
from moorage_runpod.testing import KEY, FakeRunPod
from moorage_runpod.testing.recorded import SeenRequest

IMAGE = "acme/worker:1"
ROUNDS = 3  # each with a fresh service, which remembers no refusal
LONGEST = 60.0  # seconds for one round
CREATE, DELETE = "POST /v2/serverless", "DELETE /v2/serverless/{id}"


async def _until(http: httpx.AsyncClient, id_: str, status: str) -> None:
    async with asyncio.timeout(LONGEST):
        while True:
            found = (await http.get(f"/v1/deployments/{id_}")).raise_for_status().json()
            if found["status"] == status:
                return
            await asyncio.sleep(0.05)


async def _round(url: str, fake: FakeRunPod) -> None:
    """One deployment falls through every pool but the dearest."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=LONGEST) as http:
        offers = (await http.get("/v1/gpus")).raise_for_status().json()["items"]
        fake.faults.throttled_pools = frozenset(offer["id"] for offer in offers[:-1])
        accepted = await http.post("/v1/deployments", json={"container_image": IMAGE})
        id_ = accepted.raise_for_status().json()["deployment_id"]
        await _until(http, id_, "ready")
        await http.delete(f"/v1/deployments/{id_}")
        await _until(http, id_, "deleted")


def gaps(requests: Sequence[SeenRequest]) -> list[float]:
    """Seconds from the last look before a delete to the next create."""
    found, look, refused_at = [], None, None
    for request in requests:
        if request.name == DELETE and refused_at is None:
            refused_at = look
        elif request.name == CREATE:
            if refused_at is not None:
                found.append(request.at - refused_at)
            refused_at = None
        elif request.method == "GET" and refused_at is None:
            look = request.at
    return sorted(found)


async def run() -> list[Row]:
    seconds: list[float] = []
    for _ in range(ROUNDS):
        async with FakeRunPod() as fake:
            environ = {
                "MOORAGE_RUNPOD_API_URL": fake.api_url,
                "MOORAGE_RUNPOD_CAPACITY_SECONDS": "0.05",
                "MOORAGE_RUNPOD_LIST_LAG_SECONDS": "0",
            }
            with (
                tempfile.TemporaryDirectory() as folder,
                service(Path(folder) / "var", managed=True, environ=environ, loading_look=0.1) as served,
            ):
                await _round(served.url, fake)
            seconds += gaps(fake.requests)
    seconds.sort()
    p50, p99 = (seconds[math.ceil(len(seconds) * q) - 1] for q in (0.5, 0.99))
    return [
        Row(f"refused offer to next create, n {len(seconds)}: p50", p50 * 1e3, "ms"),
        Row("  p99", p99 * 1e3, "ms", 100, at_most=True),
    ]


def main() -> None:
    print(table(uvloop.run(run())))


if __name__ == "__main__":
    main()
