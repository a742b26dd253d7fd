"""What is known before any model is looked at: model specs, runtimes, and the sizes GPUs come in.

Plain values, so that estimates are pure. They are data, not code: an adapter fills them from the registry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from moorage.domain.compute import GIB
from moorage.domain.model import WeightFormat


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A number and why it is that number."""

    value: float
    why: str


@dataclass(frozen=True, slots=True)
class Component:
    name: str
    parameters: int
    bytes_per_parameter: float

    @property
    def bytes(self) -> int:
        return math.ceil(self.parameters * self.bytes_per_parameter)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model whose need is known better than its files tell. `headroom` is a factor on the components."""

    repo_id: str
    pipeline_class: str
    task: str
    dtype: str
    min_vram_gb: float
    components: tuple[Component, ...]
    headroom: float
    why: str


@dataclass(frozen=True, slots=True)
class Generation:
    """How a runtime that generates text uses memory per token. `live_tensors` counts hidden states per token
    at the peak of a step, `batched_tokens` the most tokens in one step (None: a whole context)."""

    live_tensors: Reasoned
    batched_tokens: Reasoned | None
    default_context_length: int
    default_concurrency: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """A program that can serve models. Contexts are bytes, None where it cannot run there."""

    name: str
    formats: frozenset[WeightFormat]
    weight_factor: Reasoned
    cpu_context: Reasoned | None = None
    gpu_context: Reasoned | None = None
    pipelines: bool = False
    generation: Generation | None = None
    libraries: frozenset[str] = frozenset()  # empty: any
    tasks: frozenset[str] = frozenset()  # empty: any
    excluded_tasks: frozenset[str] = frozenset()
    memory_share: Reasoned = Reasoned(1.0, "")
    shards: bool = False
    per_shard_bytes: int = 0
    min_compute_capability: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def compute_capability_for(self, dtype: str | None) -> float | None:
        """The least that the runtime and a weight dtype need; None for no need."""
        needs = [self.min_compute_capability.get(key) for key in ("*", dtype or "*")]
        return max((need for need in needs if need is not None), default=None)


@dataclass(frozen=True, slots=True)
class InstancePrice:
    """Of one whole machine of a cloud, USD per hour, `as_of` an ISO date."""

    price_per_hour: float
    source: str
    as_of: str
    region: str | None = None
    spot_price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """`tiers_gb` rise; `usable_share` of a card's memory is a process's own; `runtimes` are in order of
    preference; `instances` are by instance type in lower case."""

    tiers_gb: tuple[float, ...]
    usable_share: float
    headroom: float
    models: Mapping[str, ModelSpec]  # by repo id in lower case
    runtimes: tuple[Runtime, ...]
    instances: Mapping[str, tuple[InstancePrice, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def instance_price(
        self, instance_type: str, region: str | None = None, *, spot: bool = False
    ) -> InstancePrice | None:
        """What a node of that type costs, by its label. Where the region has no price of its own, that of
        another one stands, and where spot has none, that on demand; `source` then says so."""
        listed = self.instances.get(instance_type.lower(), ())
        near = next((p for p in listed if region is not None and p.region == region), None)
        price = near or next(iter(listed), None)
        if price is None:
            return None
        remarks = [price.source]
        if region is not None and near is None and price.region is not None:
            remarks.append(f"of {price.region}, none is listed for {region}")
        if spot and price.spot_price_per_hour is None:
            remarks.append("on demand, none is listed for spot")
        per_hour = price.spot_price_per_hour if spot else None
        return replace(price, price_per_hour=per_hour or price.price_per_hour, source="; ".join(remarks))

    def spec(self, repo_id: str) -> ModelSpec | None:
        return self.models.get(repo_id.lower())

    def usable_bytes(self, memory_gb: float) -> int:
        """What a process can allocate on a card of `memory_gb` binary gigabytes."""
        return int(memory_gb * GIB * self.usable_share)

    def tier(self, needed_bytes: int) -> float:
        """The smallest real GPU size, in GB, whose usable part holds `needed_bytes`; beyond the largest, the
        nominal size that would be needed."""
        fitting = (size for size in self.tiers_gb if self.usable_bytes(size) >= needed_bytes)
        return next(fitting, float(math.ceil(needed_bytes / GIB / self.usable_share)))
