"""How much memory a model needs, as a sum that a user can check line by line.

Every estimate errs on the side of more: a replica that runs out of memory after minutes of loading costs more
than a slightly larger GPU. Where the registry lists the model, its arithmetic wins over what the files tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moorage.domain.catalog import Catalog, Generation, ModelSpec, Reasoned, Runtime
from moorage.domain.compute import GIB, Concession, Estimate, RuntimeOption
from moorage.domain.model import Attention, ModelProfile, SizedItem, WeightSet
from moorage.errors import Invalid, ModelUnreadable

TEXT_GENERATION = "text-generation"
SHORTEST_CONTEXT = 512  # no shorter context is ever suggested

_ACTIVATION_BYTES = 2  # hidden states are kept in 16 bits, whatever the weights are packed into


@dataclass(frozen=True, slots=True)
class Load:
    """What one replica must hold at once: `concurrency` sequences of `context_length` tokens."""

    context_length: int
    concurrency: int


def runtime_options(
    profile: ModelProfile,
    catalog: Catalog,
    *,
    context_length: int | None = None,
    concurrency: int | None = None,
    task: str | None = None,
) -> tuple[RuntimeOption, ...]:
    """The ways to run the model, preferred first; each runtime on the CPU before on a GPU.

    `task` overrides the Hub's. Raises ModelUnreadable when no runtime serves the weights that were found, and
    Invalid for a `context_length` beyond what the model was made for.
    """
    _check_context(profile, context_length)
    task = task or profile.task or (TEXT_GENERATION if profile.attention else None)
    spec = catalog.spec(profile.repo_id)
    options = [
        _option(profile, weights, runtime, catalog, accelerator, context_length, concurrency, task)
        for runtime in catalog.runtimes
        if (weights := _weights_for(runtime, profile, spec, task)) is not None
        for accelerator in _places(runtime)
    ]
    if not options:
        raise _unservable(profile, catalog, task)
    return tuple(options)


def estimate(
    profile: ModelProfile,
    weights: WeightSet,
    runtime: Runtime,
    catalog: Catalog,
    *,
    accelerator: bool,
    context_length: int | None = None,
    concurrency: int | None = None,
    task: str | None = None,
) -> Estimate:
    """Memory of one replica of `weights` under `runtime`, on a GPU (`accelerator`) or in main memory."""
    spec = catalog.spec(profile.repo_id) if runtime.pipelines else None
    if spec is not None:
        items = _listed(spec)
    else:
        load = _load(profile, runtime, context_length, concurrency)
        if load is None and runtime.generation is not None and (task or profile.task) == TEXT_GENERATION:
            items = _of_unknown_shape(weights, catalog)
        else:
            items = _measured(profile, weights, runtime, accelerator, load)
    total = sum(item.bytes for item in items)
    return Estimate(total_bytes=total, min_vram_gb=catalog.tier(total), items=items)


def kv_cache_bytes(attention: Attention, load: Load) -> int:
    """Keys and values of every layer for all tokens held at once; window layers keep only their window."""
    window = min(attention.sliding_window or load.context_length, load.context_length)
    full_layers = attention.layers - attention.sliding_layers
    tokens = full_layers * load.context_length + attention.sliding_layers * window
    per_token = 2 * attention.kv_heads * attention.head_dim * attention.kv_dtype_bytes
    return math.ceil(tokens * per_token * load.concurrency)


# -- which runtime serves what ------------------------------------------------------------------------------


def _places(runtime: Runtime) -> Iterator[bool]:
    if runtime.cpu_context is not None:
        yield False
    if runtime.gpu_context is not None:
        yield True


def _weights_for(
    runtime: Runtime, profile: ModelProfile, spec: ModelSpec | None, task: str | None
) -> WeightSet | None:
    """The weight set that `runtime` would load, or None when it does not serve this model."""
    if spec is not None and not runtime.pipelines:
        return None
    if not _serves(runtime, profile, task):
        return None
    return next(
        (w for w in profile.weights if w.format in runtime.formats and w.diffusers == runtime.pipelines), None
    )


def _serves(runtime: Runtime, profile: ModelProfile, task: str | None) -> bool:
    library = profile.library or ("transformers" if profile.architectures else None)
    if runtime.libraries and library not in runtime.libraries:
        return False
    if runtime.tasks and task not in runtime.tasks:
        return False
    return task not in runtime.excluded_tasks


def _unservable(profile: ModelProfile, catalog: Catalog, task: str | None) -> ModelUnreadable:
    found = [
        f"{'a diffusers pipeline in ' if w.diffusers else ''}{w.format} ({_gib(w.bytes)})"
        for w in profile.weights
    ]
    holds = ", ".join(found) if found else "no weights in a known format"
    supported = "; ".join(_supports(runtime) for runtime in catalog.runtimes)
    return ModelUnreadable(
        f"No runtime can serve {profile.repo_id}: it holds {holds}, "
        f"with library {profile.library or 'unknown'} and task {task or 'unknown'}.",
        advice=f"Supported are: {supported}. If the task is not what the Hub says, set `task`.",
    )


def _supports(runtime: Runtime) -> str:
    parts = [" or ".join(sorted(runtime.formats))]
    if runtime.pipelines:
        parts.append("as a diffusers pipeline (model_index.json)")
    if runtime.libraries:
        parts.append("for library " + ", ".join(sorted(runtime.libraries)))
    if runtime.tasks:
        parts.append("for task " + ", ".join(sorted(runtime.tasks)))
    return f"{runtime.name}: {' '.join(parts)}"


def _check_context(profile: ModelProfile, context_length: int | None) -> None:
    most = profile.attention.max_positions if profile.attention else None
    if context_length is not None and most is not None and context_length > most:
        raise Invalid.at(
            "context_length",
            "model_limit",
            f"{profile.repo_id} was made for at most {most} tokens, {context_length} were asked for",
            advice=f"Ask for context_length ≤ {most}.",
        )


def _option(
    profile: ModelProfile,
    weights: WeightSet,
    runtime: Runtime,
    catalog: Catalog,
    accelerator: bool,
    context_length: int | None,
    concurrency: int | None,
    task: str | None,
) -> RuntimeOption:
    def under(load: Load | None) -> Estimate:
        return estimate(
            profile,
            weights,
            runtime,
            catalog,
            accelerator=accelerator,
            context_length=load.context_length if load else context_length,
            concurrency=load.concurrency if load else concurrency,
            task=task,
        )

    spec = catalog.spec(profile.repo_id)
    dtype = spec.dtype if spec else weights.dtype
    shards = runtime.shards and accelerator
    smaller = [
        Concession(words, under(load).total_bytes)
        for words, load in _lighter(_load(profile, runtime, context_length, concurrency))
    ]
    return RuntimeOption(
        runtime=runtime.name,
        accelerator=accelerator,
        estimate=under(None),
        min_compute_capability=runtime.compute_capability_for(dtype) if accelerator else None,
        shards=shards,
        heads=profile.attention.heads if profile.attention else None,
        per_shard_bytes=runtime.per_shard_bytes if shards else 0,
        concessions=tuple(sorted(smaller, key=lambda c: -c.total_bytes)),
    )


# -- the sum ----------------------------------------------------------------------------------------------


def _load(
    profile: ModelProfile, runtime: Runtime, context_length: int | None, concurrency: int | None
) -> Load | None:
    """What is asked for, or the runtime's default within what the model allows; None without a KV cache."""
    generation, attention = runtime.generation, profile.attention
    if generation is None or attention is None:
        return None
    default = min(generation.default_context_length, attention.max_positions or math.inf)
    return Load(context_length or int(default), concurrency or generation.default_concurrency)


def _lighter(load: Load | None) -> Iterator[tuple[str, Load]]:
    """Loads with one wish halved again and again, with the words to ask for them."""
    if load is None:
        return
    sequences = load.concurrency
    while (sequences := sequences // 2) >= 1:
        yield f"ask for concurrency ≤ {sequences}", replace(load, concurrency=sequences)
    tokens = load.context_length
    while (tokens := tokens // 2) >= SHORTEST_CONTEXT:
        yield f"ask for context_length ≤ {tokens}", replace(load, context_length=tokens)


def _listed(spec: ModelSpec) -> tuple[SizedItem, ...]:
    components = tuple(
        SizedItem(
            c.name,
            c.bytes,
            f"registry: {c.parameters / 1e9:.2f} B parameters × {c.bytes_per_parameter:g} bytes",
        )
        for c in spec.components
    )
    headroom = math.ceil(sum(item.bytes for item in components) * (spec.headroom - 1))
    return (*components, SizedItem("registry", headroom, f"headroom ×{spec.headroom:g}: {spec.why}"))


def _measured(
    profile: ModelProfile,
    weights: WeightSet,
    runtime: Runtime,
    accelerator: bool,
    load: Load | None,
) -> tuple[SizedItem, ...]:
    items = [*weights.items, *_growth(weights, runtime.weight_factor)]
    if load is not None and profile.attention is not None and runtime.generation is not None:
        items.extend(_generation_items(profile.attention, runtime.generation, load))
    context = runtime.gpu_context if accelerator else runtime.cpu_context
    if context is not None and context.value > 0:
        items.append(SizedItem("runtime context", math.ceil(context.value), context.why))
    if accelerator and runtime.memory_share.value < 1:
        items.append(_reserve(items, runtime.memory_share))
    return tuple(items)


def _of_unknown_shape(weights: WeightSet, catalog: Catalog) -> tuple[SizedItem, ...]:
    how = "the model's shape is not known, so no KV cache can be computed: the general headroom is taken"
    return (*weights.items, *_growth(weights, Reasoned(catalog.headroom, how)))


def _growth(weights: WeightSet, factor: Reasoned) -> Iterator[SizedItem]:
    if factor.value > 1:
        extra = math.ceil(weights.bytes * (factor.value - 1))
        yield SizedItem("headroom on weights", extra, f"{factor.value - 1:.0%} of the weights: {factor.why}")


def _generation_items(attention: Attention, generation: Generation, load: Load) -> Iterator[SizedItem]:
    window = ""
    if attention.sliding_layers and attention.sliding_window:
        window = f"; {attention.sliding_layers} layers keep only {attention.sliding_window} tokens"
    yield SizedItem(
        "KV cache",
        kv_cache_bytes(attention, load),
        f"2 (keys, values) × {attention.layers} layers × {attention.kv_heads} heads × {attention.head_dim} × "
        f"{attention.kv_dtype_bytes:g} bytes × {load.context_length} tokens × {load.concurrency} sequences"
        + window,
    )
    live = generation.live_tensors
    if live.value > 0:
        tokens = generation.batched_tokens.value if generation.batched_tokens else load.context_length
        hidden = attention.heads * attention.head_dim
        yield SizedItem(
            "activations",
            math.ceil(tokens * hidden * _ACTIVATION_BYTES * live.value),
            f"{tokens:.0f} tokens in one step × hidden size {hidden} × {_ACTIVATION_BYTES} bytes × "
            f"{live.value:g} live tensors: {live.why}",
        )


def _reserve(items: Sequence[SizedItem], share: Reasoned) -> SizedItem:
    used = sum(item.bytes for item in items)
    return SizedItem(
        "reserve",
        math.ceil(used / share.value) - used,
        f"the above may fill {share.value:.0%} of the memory: {share.why}",
    )


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
