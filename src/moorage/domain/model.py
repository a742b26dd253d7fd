"""What is served, and what is known of it before any compute is chosen.

A profile is read once (from the Hub or from an artifact's own header), stored with the deployment, and is all
that the estimator ever looks at, so that a plan can be explained and repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class HubModel:
    """A Hugging Face repository; `revision` is a branch, tag or commit, None for the default branch."""

    repo_id: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class UploadedModel:
    model_id: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerImage:
    image: str


Source = HubModel | UploadedModel | ContainerImage


class CacheScope(StrEnum):
    OFF = "off"
    PRIVATE = "private"  # the owner's bucket: read, and filled after the first download
    SHARED = "shared"  # the operator's bucket: read only, for models on its list


@dataclass(frozen=True, slots=True)
class ModelCache:
    """Where weights are kept between starts. `url` is `s3://bucket/prefix` of the private scope; its keys are
    among the deployment's sealed secrets."""

    scope: CacheScope = CacheScope.OFF
    url: str | None = None
    endpoint_url: str | None = None  # of an S3 that is not AWS's


@dataclass(frozen=True, slots=True)
class SharedCachePolicy:
    """The operator's rules for the shared cache. `allowed` are repo ids in lower case; a model that is not
    among them is refused, or just not cached."""

    there: bool = False
    allowed: frozenset[str] = frozenset()
    reject_unlisted: bool = True

    def allows(self, repo_id: str) -> bool:
        return repo_id.lower() in self.allowed


class WeightFormat(StrEnum):
    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"
    GGUF = "gguf"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class SizedItem:
    """One line of the sum: `how` says where the number comes from, in words a user can check."""

    name: str
    bytes: int
    how: str


@dataclass(frozen=True, slots=True)
class WeightSet:
    """One complete set of weights of a repository that may hold several (ONNX beside safetensors, …)."""

    format: WeightFormat
    items: tuple[SizedItem, ...]
    dtype: str | None = None  # the dtype that most bytes have: "BF16", "F32", "Q4_K_M", …
    diffusers: bool = False  # laid out as a diffusers pipeline, one folder a component

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)


@dataclass(frozen=True, slots=True)
class Attention:
    """What a KV cache is computed from; only for models that generate text."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int | None = None
    sliding_window: int | None = None
    sliding_layers: int = 0  # how many of `layers` attend only to the window
    kv_dtype_bytes: float = 2.0


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """What the Hub says of one repository at one commit."""

    repo_id: str
    revision: str  # commit sha, pinned
    weights: tuple[WeightSet, ...]
    task: str | None = None  # the Hub's pipeline tag
    library: str | None = None
    architectures: tuple[str, ...] = ()
    pipeline_class: str | None = None  # diffusers' `_class_name`
    attention: Attention | None = None
