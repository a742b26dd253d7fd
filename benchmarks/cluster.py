"""1,000 deployments on one cluster: what they cost its API server when nothing happens.

The service follows the cluster by watches. In steady state it should ask nothing, however many deployments
there are; what is counted is every request that reaches the (stand-in) API server within a minute after all
are ready, watches that are opened anew among them.

    python -m benchmarks.cluster [how many]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import uvloop

from benchmarks.service import ServiceProcess, service
from benchmarks.table import Row, table
from moorage_kubernetes.testing import StandInCluster

DEPLOYMENTS = 1000
AT_ONCE = 16
QUIET_SECONDS = 60.0
LONGEST = 600.0
BRIEF = httpx.Limits(keepalive_expiry=1.0)  # the service closes idle connections after five seconds
WORKLOAD = {
    "ports": {"http": 8000},
    "health": {"path": "/health", "port": 8000, "initial_delay": 0, "period": 1},
    "resources": {"cpu_request": 0.1, "cpu_limit": 1, "memory_request": "64Mi", "memory_limit": "64Mi"},
}


async def _deploy(http: httpx.AsyncClient, cluster: str, count: int) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        body = {
            "name": f"echo-{number}",
            "container_image": "registry.example.com/acme/echo:1",
            "cluster": cluster,
            "workload": WORKLOAD,
        }
        async with places:
            (await http.post("/v1/deployments", json=body)).raise_for_status()

    await asyncio.gather(*(one(number) for number in range(count)))


async def _all_serve(served: ServiceProcess, count: int) -> None:
    async with asyncio.timeout(LONGEST):
        while served.serving() < count:  # noqa: ASYNC110  # another process, which a pipe asks
            await asyncio.sleep(0.5)


async def run(count: int = DEPLOYMENTS) -> list[Row]:
    async with StandInCluster(node=False) as cluster:
        for number in range(1 + count // 100):
            cluster.add_node(f"node-{number}", {"karpenter.sh/nodepool": "pool"}, cpu=32, memory_gib=64)
        with (
            tempfile.TemporaryDirectory() as folder,
            service(Path(folder) / "var", managed=True) as served,
        ):
            async with httpx.AsyncClient(
                base_url=served.url, headers=served.headers, timeout=60, limits=BRIEF
            ) as http:
                body = {"name": "bench", "kubeconfig": cluster.kubeconfig()}
                imported = (await http.post("/clusters/", json=body)).raise_for_status().json()["uuid"]
                began = time.monotonic()
                await _deploy(http, imported, count)
                await _all_serve(served, count)
                took, asked = time.monotonic() - began, len(cluster.requests)
                await asyncio.sleep(5)  # the last of what their beginning led to
                before, cpu = len(cluster.requests), served.usage().cpu
                await asyncio.sleep(QUIET_SECONDS)
                quiet = cluster.requests[before:]
                cpu = (served.usage().cpu - cpu) / QUIET_SECONDS
    kinds = Counter(f"{request.method} {request.path}" for request in quiet)
    print(f"in a quiet minute: {dict(kinds.most_common(8))}", file=sys.stderr)
    return [
        Row(f"{count} deployments on one cluster: until all are ready", took, "s"),
        Row("  requests to its API server, each deployment", asked / count, ""),
        Row("  in a quiet minute, each deployment", len(quiet) / count, "", 0.1, at_most=True),
        Row("  in a quiet minute, all together", len(quiet), ""),
        Row("  CPU of the service, of one core", cpu * 100, "%"),
    ]


def main() -> None:
    print(table(uvloop.run(run(*(int(text) for text in sys.argv[1:2])))))


if __name__ == "__main__":
    main()
