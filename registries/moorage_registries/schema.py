"""The one schema of every TOML file here.

Data that decides where money is spent must be checkable: each price has a date and a source, each spec
carries the arithmetic that leads to its number, and the checks below refuse data that contradicts itself.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

GIB = 1024**3

# Long texts are broken over lines in the files; here they are one line.
Words = Annotated[str, Field(min_length=1), AfterValidator(lambda text: " ".join(text.split()))]
Positive = Annotated[float, Field(gt=0)]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reasoned(Entry):
    """A number and why it is that number."""

    value: Annotated[float, Field(ge=0)]
    why: Words


class Gpu(Entry):
    """One GPU type. `ids` are what providers and drivers call it; `memory_gb` is per card, binary."""

    name: Words
    ids: tuple[str, ...] = ()
    vendor: Literal["nvidia", "amd"] = "nvidia"
    memory_gb: Positive
    compute_capability: Positive | None = None


class Tiers(Entry):
    """The real sizes that cards come in, and the rule for what of a card a process can use."""

    sizes_gb: tuple[Positive, ...]
    usable_share: Reasoned
    headroom: Reasoned  # factor on weights where nothing better is known

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.sizes_gb) != sorted(set(self.sizes_gb)):
            raise ValueError("sizes_gb must rise")
        return self

    def usable_bytes(self, memory_gb: float) -> int:
        """What a process can allocate on a card of `memory_gb`."""
        return int(memory_gb * GIB * self.usable_share.value)

    def snap(self, needed_bytes: float) -> float | None:
        """The smallest size (GB) whose usable part holds `needed_bytes`; None if none does."""
        return next((size for size in self.sizes_gb if self.usable_bytes(size) >= needed_bytes), None)


class Price(Entry):
    """What a product costs, USD per hour, with date and source. `price_per_hour` is for all its GPUs
    together; None where it is sold but no price was found."""

    provider: Words
    product: Words
    gpus: Annotated[tuple[str, ...], Field(min_length=1)]  # names of `Gpu`s
    gpu_count: Annotated[int, Field(ge=1)] = 1
    memory_gb: Positive  # per GPU, the least that one gets
    price_per_hour: Positive | None = None
    spot_price_per_hour: Positive | None = None
    billing: Literal["serverless", "on-demand"]
    region: str | None = None
    as_of: date
    source: Words
    note: str | None = None


class Instance(Entry):
    """What a whole machine of a cloud costs, USD per hour, with date and source. `type` is what the cloud's
    Kubernetes says in the label `node.kubernetes.io/instance-type`."""

    cloud: Literal["aws", "azure", "gcp"]
    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    price_per_hour: Positive  # on demand
    spot_price_per_hour: Positive | None = None
    region: Words | None = None
    gpu: Words | None = None  # name of a `Gpu`
    gpus: Annotated[int, Field(ge=0)] = 0
    as_of: date
    source: Words
    note: str | None = None

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if (self.gpu is None) != (self.gpus == 0):
            raise ValueError(f"{self.type}: gpu and gpus are told together")
        return self


class Component(Entry):
    name: Words
    parameters_millions: Positive
    bytes_per_parameter: Positive


class Model(Entry):
    """A model whose need is known better than its files tell."""

    repo_id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    pipeline_class: Words
    task: Words
    dtype: Words
    min_vram_gb: Positive
    components: Annotated[tuple[Component, ...], Field(min_length=1)]
    headroom: Positive | None = None  # None: that of the tiers
    why: Words

    @property
    def weight_bytes(self) -> int:
        return round(sum(c.parameters_millions * 1e6 * c.bytes_per_parameter for c in self.components))


class Runtime(Entry):
    """A program that serves models, and what it needs beside the weights. The lowest `order` is preferred."""

    name: Words
    order: int
    formats: Annotated[tuple[Literal["safetensors", "pytorch", "gguf", "onnx"], ...], Field(min_length=1)]
    cpu: bool
    gpu: bool
    pipelines: bool = False  # serves diffusers pipelines, and nothing else
    generates_text: bool = False  # keeps a KV cache
    libraries: tuple[str, ...] = ()  # the Hub's library names it serves; empty: any
    tasks: tuple[str, ...] = ()  # empty: any
    excluded_tasks: tuple[str, ...] = ()
    weight_factor: Reasoned
    cpu_context_bytes: Reasoned | None = None
    gpu_context_bytes: Reasoned | None = None
    memory_share: Reasoned = Reasoned(value=1, why="takes no fixed share: allocates as it goes")
    live_tensors: Reasoned | None = None  # of one hidden state per token, at the peak of a step
    batched_tokens: Reasoned | None = None  # most tokens in one step
    default_context_length: Reasoned | None = None
    default_concurrency: Reasoned | None = None
    shards: bool = False
    per_shard_bytes: Reasoned = Reasoned(value=0, why="does not shard")
    min_compute_capability: dict[str, Reasoned] = {}  # by dtype as safetensors writes it; "*": any

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.cpu and self.cpu_context_bytes is None:
            raise ValueError(f"{self.name}: cpu needs cpu_context_bytes")
        if self.gpu and self.gpu_context_bytes is None:
            raise ValueError(f"{self.name}: gpu needs gpu_context_bytes")
        lengths = (self.live_tensors, self.default_context_length, self.default_concurrency)
        if self.generates_text and None in lengths:
            raise ValueError(
                f"{self.name}: generates_text needs live_tensors, default_context_length and "
                "default_concurrency"
            )
        if self.shards and self.per_shard_bytes.value <= 0:
            raise ValueError(f"{self.name}: shards needs per_shard_bytes")
        if not 0 < self.memory_share.value <= 1:
            raise ValueError(f"{self.name}: memory_share must be in (0, 1]")
        return self


class File(Entry):
    """One TOML file."""

    tiers: Tiers | None = None
    gpus: tuple[Gpu, ...] = ()
    prices: tuple[Price, ...] = ()
    instances: tuple[Instance, ...] = ()
    models: tuple[Model, ...] = ()
    runtimes: tuple[Runtime, ...] = ()


class Registry(Entry):
    """All files together. `runtimes` are in order of preference."""

    tiers: Tiers
    gpus: tuple[Gpu, ...]
    prices: tuple[Price, ...]
    instances: tuple[Instance, ...]
    models: tuple[Model, ...]
    runtimes: tuple[Runtime, ...]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        keys_of: dict[str, list[str]] = {
            "GPU": [name.lower() for gpu in self.gpus for name in {gpu.name, *gpu.ids}],
            "model": [model.repo_id.lower() for model in self.models],
            "runtime": [runtime.name for runtime in self.runtimes],
            "instance": [f"{i.type.lower()} {i.region}" for i in self.instances],
            "price": [f"{p.provider} {p.product} {p.region} {p.billing}" for p in self.prices],
        }
        for kind, keys in keys_of.items():
            twice = {key for key in keys if keys.count(key) > 1}
            if twice:
                raise ValueError(f"{kind} listed twice: {sorted(twice)}")
        return self

    @model_validator(mode="after")
    def _prices_name_gpus(self) -> Self:
        known = {gpu.name for gpu in self.gpus}
        for price in self.prices:
            unknown = set(price.gpus) - known
            if unknown:
                raise ValueError(
                    f"price {price.provider} {price.product} names unknown GPUs: {sorted(unknown)}"
                )
        for instance in self.instances:
            if instance.gpu is not None and instance.gpu not in known:
                raise ValueError(f"instance {instance.type} names an unknown GPU: {instance.gpu}")
        return self

    @model_validator(mode="after")
    def _arithmetic_holds(self) -> Self:
        for model in self.models:
            needed = model.weight_bytes * (model.headroom or self.tiers.headroom.value)
            tier = self.tiers.snap(needed)
            if tier != model.min_vram_gb:
                raise ValueError(
                    f"{model.repo_id}: its components and headroom need {needed / GIB:.1f} GiB, "
                    f"which is tier {tier}, not min_vram_gb = {model.min_vram_gb}"
                )
        return self

    def gpu(self, name: str) -> Gpu | None:
        """By name or any of its ids, whatever the case."""
        wanted = name.lower()
        return next((g for g in self.gpus if wanted in {n.lower() for n in (g.name, *g.ids)}), None)

    def usable_bytes(self, gpu: Gpu) -> int:
        return self.tiers.usable_bytes(gpu.memory_gb)
