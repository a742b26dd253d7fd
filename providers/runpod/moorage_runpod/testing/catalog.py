"""What RunPod sells, as far as the fake knows: GPU types in pools, data centres, CPU flavours.

Prices and stock are those of the middle of 2026 where they are known; tests that need others set them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LEVELS = ("NONE", "LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True, slots=True)
class GpuType:
    """`memory` in GB; prices in USD per GPU-hour. `pool` None: not for serverless."""

    id: str
    name: str
    pool: str | None
    memory: int
    secure: float
    data_centers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataCenter:
    id: str
    name: str
    country: str
    volumes: bool


@dataclass(frozen=True, slots=True)
class CpuFlavor:
    """`ram` in GB per vCPU."""

    id: str
    ram: float
    most: int


_EVERYWHERE = ("EU-RO-1", "US-KS-2", "US-IL-1", "US-CA-2", "EU-CZ-1")
_GPUS = (
    GpuType("NVIDIA RTX A4000", "RTX A4000", "AMPERE_16", 16, 0.25, ("EU-RO-1", "US-IL-1")),
    GpuType("NVIDIA RTX A4500", "RTX A4500", "AMPERE_16", 20, 0.25, ("EU-RO-1", "US-IL-1")),
    GpuType("NVIDIA L4", "L4", "AMPERE_24", 24, 0.39, _EVERYWHERE),
    GpuType("NVIDIA RTX A5000", "RTX A5000", "AMPERE_24", 24, 0.27, ("EU-RO-1", "US-KS-2")),
    GpuType("NVIDIA GeForce RTX 3090", "RTX 3090", "AMPERE_24", 24, 0.46, ("EU-CZ-1",)),
    GpuType("NVIDIA GeForce RTX 4090", "RTX 4090", "ADA_24", 24, 0.74, _EVERYWHERE),
    GpuType("NVIDIA A40", "A40", "AMPERE_48", 48, 0.40, ("EU-CZ-1", "US-KS-2")),
    GpuType("NVIDIA RTX A6000", "RTX A6000", "AMPERE_48", 48, 0.49, ("US-IL-1", "US-KS-2")),
    GpuType("NVIDIA L40", "L40", "ADA_48_PRO", 48, 0.99, ("EU-RO-1", "US-KS-2")),
    GpuType("NVIDIA L40S", "L40S", "ADA_48_PRO", 48, 1.09, _EVERYWHERE),
    GpuType("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", "ADA_48_PRO", 48, 0.77, ("EU-RO-1",)),
    GpuType("NVIDIA A100 80GB PCIe", "A100 PCIe", "AMPERE_80", 80, 1.59, ("EU-RO-1", "US-KS-2")),
    GpuType("NVIDIA A100-SXM4-80GB", "A100 SXM", "AMPERE_80", 80, 1.59, ("US-KS-2", "US-IL-1")),
    GpuType("NVIDIA H100 80GB HBM3", "H100 SXM", "ADA_80_PRO", 80, 3.49, ("US-CA-2", "US-KS-2")),
    GpuType("NVIDIA H100 NVL", "H100 NVL", "ADA_80_PRO", 94, 3.19, ("US-KS-2",)),
    GpuType("NVIDIA H200", "H200 SXM", "HOPPER_141", 141, 4.59, ("US-CA-2", "EU-CZ-1")),
    GpuType("NVIDIA B200", "B200", "BLACKWELL_180", 180, 6.79, ("US-CA-2",)),
    GpuType("NVIDIA T4", "T4", None, 16, 0.20, ("US-IL-1",)),
)
_PRICES = {
    "AMPERE_16": 0.58,
    "AMPERE_24": 0.69,
    "ADA_24": 1.1,
    "AMPERE_48": 1.22,
    "ADA_48_PRO": 1.9,
    "AMPERE_80": 2.72,
    "ADA_80_PRO": 4.18,
    "HOPPER_141": 5.58,
    "BLACKWELL_180": 8.64,
}
_DATA_CENTERS = (
    DataCenter("EU-RO-1", "EU Romania 1", "RO", True),
    DataCenter("US-KS-2", "US Kansas 2", "US", True),
    DataCenter("US-IL-1", "US Illinois 1", "US", True),
    DataCenter("US-CA-2", "US California 2", "US", True),
    DataCenter("EU-CZ-1", "EU Czechia 1", "CZ", True),
    DataCenter("US-GA-1", "US Georgia 1", "US", False),
)
_CPUS = (
    CpuFlavor("cpu3c", 2, 32),
    CpuFlavor("cpu3g", 4, 32),
    CpuFlavor("cpu5c", 2, 32),
    CpuFlavor("cpu5g", 4, 32),
)


@dataclass(slots=True)
class Catalog:
    """`stock` is by pool, one of LEVELS; a pool that is not named has plenty. Stock is what is told, no more:
    whether a worker finds a machine is a fault's to say, as stock is advice with RunPod too."""

    gpus: Sequence[GpuType] = _GPUS
    prices: dict[str, float] = field(default_factory=lambda: dict(_PRICES))  # by pool, USD per GPU-hour
    stock: dict[str, str] = field(default_factory=dict)
    data_centers: Mapping[str, DataCenter] = field(default_factory=lambda: {d.id: d for d in _DATA_CENTERS})
    cpus: Mapping[str, CpuFlavor] = field(default_factory=lambda: {c.id: c for c in _CPUS})
    cuda_versions: Sequence[str] = ("12.4", "12.6", "12.8")

    @property
    def pools(self) -> frozenset[str]:
        return frozenset(g.pool for g in self.gpus if g.pool is not None)

    def pool(self, name: str) -> list[GpuType]:
        return [g for g in self.gpus if g.pool == name]

    def gpu(self, gpu_id: str) -> GpuType | None:
        return next((g for g in self.gpus if g.id == gpu_id), None)

    def told(self, gpu: GpuType, narrowed: Narrowed | None) -> dict[str, Any]:  # Any: a JSON object
        """A GPU type as the API tells it; with its stock where `narrowed` is given."""
        price = {"secure": gpu.secure, "community": 0.0}
        if gpu.pool is not None:
            price["serverless"] = self.prices[gpu.pool]
        told: dict[str, Any] = {
            "id": gpu.id,
            "name": gpu.name,
            "pool": gpu.pool,
            "manufacturer": "NVIDIA",
            "memory": gpu.memory,
            "secure": True,
            "community": False,
            "price": price,
            "maxCount": {"secure": 8, "community": 0},
        }
        if narrowed is not None:
            told |= self._stock_of(gpu, narrowed)
        return told

    def _stock_of(self, gpu: GpuType, narrowed: Narrowed) -> dict[str, Any]:  # Any: a JSON object
        level = self.stock.get(gpu.pool, "HIGH") if gpu.pool is not None else "NONE"
        centers = [self.data_centers[name] for name in gpu.data_centers]
        if narrowed.countries:
            centers = [c for c in centers if c.country in narrowed.countries]
        cuda = [v for v in self.cuda_versions if narrowed.takes(v)]
        if not centers or not cuda or narrowed.count > 8:
            level = "NONE"
        told: dict[str, Any] = {
            "availability": level,
            "cudaVersions": [{"version": v, "available": level != "NONE"} for v in cuda],
        }
        if level != "NONE":
            told["dataCenters"] = [{"id": c.id, "name": c.name, "availability": level} for c in centers]
        return told


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What availability is asked for."""

    count: int = 1
    countries: frozenset[str] = frozenset()
    cuda_versions: frozenset[str] = frozenset()
    min_cuda: str | None = None

    def takes(self, version: str) -> bool:
        if self.cuda_versions:
            return version in self.cuda_versions
        return self.min_cuda is None or _numbers(version) >= _numbers(self.min_cuda)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in version.split("."))
