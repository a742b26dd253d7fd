"""Turns the shipped registry into the domain's own values: the domain knows no pydantic and no files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from moorage.domain.catalog import (
    Catalog,
    Component,
    Generation,
    InstancePrice,
    ModelSpec,
    Reasoned,
    Runtime,
)
from moorage.domain.model import WeightFormat
from moorage_registries import load, schema


@cache
def catalog() -> Catalog:
    """The catalog that ships with Moorage."""
    registry = load()
    tiers = registry.tiers
    return Catalog(
        tiers_gb=tiers.sizes_gb,
        usable_share=tiers.usable_share.value,
        headroom=tiers.headroom.value,
        models=MappingProxyType(
            {model.repo_id.lower(): _model(model, tiers.headroom.value) for model in registry.models}
        ),
        runtimes=tuple(_runtime(runtime) for runtime in registry.runtimes),
        instances=_instances(registry.instances),
    )


def _instances(listed: Iterable[schema.Instance]) -> Mapping[str, tuple[InstancePrice, ...]]:
    by_type: defaultdict[str, list[InstancePrice]] = defaultdict(list)
    for instance in listed:
        by_type[instance.type.lower()].append(
            InstancePrice(
                price_per_hour=instance.price_per_hour,
                source=f"{instance.source} ({instance.cloud} {instance.type})",
                as_of=instance.as_of.isoformat(),
                region=instance.region,
                spot_price_per_hour=instance.spot_price_per_hour,
            )
        )
    return MappingProxyType({type_: tuple(prices) for type_, prices in by_type.items()})


def _model(model: schema.Model, headroom: float) -> ModelSpec:
    return ModelSpec(
        repo_id=model.repo_id,
        pipeline_class=model.pipeline_class,
        task=model.task,
        dtype=model.dtype,
        min_vram_gb=model.min_vram_gb,
        components=tuple(
            Component(c.name, round(c.parameters_millions * 1e6), c.bytes_per_parameter)
            for c in model.components
        ),
        headroom=model.headroom or headroom,
        why=model.why,
    )


def _runtime(runtime: schema.Runtime) -> Runtime:
    return Runtime(
        name=runtime.name,
        formats=frozenset(WeightFormat(name) for name in runtime.formats),
        weight_factor=_reasoned(runtime.weight_factor),
        cpu_context=_optional(runtime.cpu_context_bytes) if runtime.cpu else None,
        gpu_context=_optional(runtime.gpu_context_bytes) if runtime.gpu else None,
        pipelines=runtime.pipelines,
        generation=_generation(runtime),
        libraries=frozenset(runtime.libraries),
        tasks=frozenset(runtime.tasks),
        excluded_tasks=frozenset(runtime.excluded_tasks),
        memory_share=_reasoned(runtime.memory_share),
        shards=runtime.shards,
        per_shard_bytes=round(runtime.per_shard_bytes.value),
        min_compute_capability=MappingProxyType(
            {dtype: need.value for dtype, need in runtime.min_compute_capability.items()}
        ),
    )


def _generation(runtime: schema.Runtime) -> Generation | None:
    length, concurrency = runtime.default_context_length, runtime.default_concurrency
    if not runtime.generates_text or runtime.live_tensors is None or length is None or concurrency is None:
        return None
    return Generation(
        live_tensors=_reasoned(runtime.live_tensors),
        batched_tokens=_optional(runtime.batched_tokens),
        default_context_length=round(length.value),
        default_concurrency=round(concurrency.value),
    )


def _reasoned(number: schema.Reasoned) -> Reasoned:
    return Reasoned(number.value, number.why)


def _optional(number: schema.Reasoned | None) -> Reasoned | None:
    return None if number is None else _reasoned(number)
