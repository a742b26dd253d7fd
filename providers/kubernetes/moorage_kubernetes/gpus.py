"""Which accelerator a node has, by the labels that drivers and clouds put on it.

What one unit of `nvidia.com/gpu` means differs: a card, a MIG slice of one, or a turn on a card that others
use too. The labels tell, and memory is always told for one unit. Where there is no memory label, the registry
says what such a card has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moorage.domain.compute import GIB
from moorage_registries import load
from moorage_registries.schema import Gpu

MIB = 1024**2
UNKNOWN_GPU = "unknown GPU"

PRODUCT_LABELS = (
    "nvidia.com/gpu.product",  # of the GPU feature discovery
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
)
MEMORY_LABEL = "nvidia.com/gpu.memory"  # MiB
_MEMORY_LABELS = (MEMORY_LABEL, "karpenter.k8s.aws/instance-gpu-memory")
_SHARES_LABELS = ("nvidia.com/gpu.replicas", "cloud.google.com/gke-max-shared-clients-per-gpu")
_GKE_PARTITION_LABEL = "cloud.google.com/gke-gpu-partition-size"

# Clouds' words that say less, or other, than the registry's.
_SYNONYMS = {"a100": "a10040gb", "h100mega80gb": "h10080gb", "h200141gb": "h200", "v100": "v10016gb"}
_SHARED = "-SHARED"  # the device plugin puts it behind the product
_PROFILE = re.compile(r"\d+g\.(\d+)gb")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """`memory_bytes` as the card reports it, and `usable_bytes` of it for a process, both of one unit; None
    where nothing tells. `partition` is the MIG profile. A `shared` card is used by turns, by `shares`."""

    product: str  # as the label has it
    name: str  # as the registry has it, where it knows the card
    memory_bytes: int | None
    usable_bytes: int | None
    partition: str | None = None
    shares: int = 1
    shared: bool = False
    compute_capability: float | None = None
    cuda: float | None = None

    @property
    def whole(self) -> bool:
        """Whether a unit is a card, so that several are more than one."""
        return self.partition is None and not self.shared


def accelerator_of(labels: Mapping[str, str]) -> Accelerator | None:
    """None where no label names one."""
    product = next((labels[label] for label in PRODUCT_LABELS if labels.get(label)), None)
    if product is None:
        return None
    card, partition = _partition(product, labels)
    shares = max(1, *(_number(labels.get(label)) or 1 for label in _SHARES_LABELS))
    reported = next((int(m * MIB) for label in _MEMORY_LABELS if (m := _number(labels.get(label)))), None)
    known = registered(card, None if partition else reported)
    memory = _memory(known, partition, reported)
    return Accelerator(
        product=product,
        name=_name(known, card, partition, shares),
        memory_bytes=None if memory is None else memory // shares,
        usable_bytes=_usable(known, partition, memory, shares),
        partition=partition,
        shares=shares,
        shared=shares > 1 or product.endswith(_SHARED),
        compute_capability=_version(labels, "nvidia.com/gpu.compute")
        or (known.compute_capability if known else None),
        cuda=_version(labels, "nvidia.com/cuda.runtime"),
    )


def least(accelerators: Sequence[Accelerator]) -> Accelerator:
    """What all of them have: nodes of one product may differ in their drivers and in what cards report."""
    smallest = min(accelerators, key=lambda a: a.usable_bytes or 0)
    return replace(smallest, cuda=min((a.cuda for a in accelerators if a.cuda is not None), default=None))


def telling_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Those labels of a node that tell its accelerators from others'; a selector of them finds its like."""
    product = next((label for label in PRODUCT_LABELS if labels.get(label)), None)
    names = (product, _GKE_PARTITION_LABEL, *_SHARES_LABELS)
    return {name: labels[name] for name in names if name is not None and labels.get(name)}


def registered(product: str, memory_bytes: int | None = None) -> Gpu | None:
    """The registry's entry of a product as a label has it. Words that leave the memory open (`A100`) mean the
    card whose size is nearest to `memory_bytes`."""
    word = _word(product)
    if memory_bytes is not None:
        sized = [g for g in load().gpus if re.fullmatch(rf"{re.escape(word)}\d+gb", _word(g.name))]
        if sized:
            return min(sized, key=lambda gpu: abs(gpu.memory_gb * GIB - memory_bytes))
    word = _SYNONYMS.get(word, word)
    return next((g for g in load().gpus if word in {_word(name) for name in (g.name, *g.ids)}), None)


def _word(text: str) -> str:
    """Labels cannot hold spaces, and clouds write in lower case."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    return re.sub(r"^(nvidia)?(tesla|geforce)?", "", plain)


def _partition(product: str, labels: Mapping[str, str]) -> tuple[str, str | None]:
    """The card alone, and the MIG profile."""
    card, _, profile = product.removesuffix(_SHARED).partition("-MIG-")
    return card, profile or labels.get(_GKE_PARTITION_LABEL) or None


def _memory(known: Gpu | None, partition: str | None, reported: int | None) -> int | None:
    """Beside a MIG profile the drivers report the memory of a slice, the clouds that of the card."""
    if partition is not None:
        match = _PROFILE.search(partition)
        slice_ = int(match[1]) * GIB if match else None
        return min((m for m in (slice_, reported) if m is not None), default=None)
    if reported is not None:
        return reported
    return None if known is None else int(known.memory_gb * GIB)


def _usable(known: Gpu | None, partition: str | None, memory: int | None, shares: int) -> int | None:
    """The registry's share is of the nominal size. Of a size that was reported it takes a little too much."""
    if memory is None:
        return None
    nominal = memory / GIB if known is None or partition else known.memory_gb
    return min(memory, load().tiers.usable_bytes(nominal)) // shares


def _name(known: Gpu | None, card: str, partition: str | None, shares: int) -> str:
    name = known.name if known is not None else card.replace("-", " ")
    if partition is not None:
        name = f"{name} MIG {partition}"
    return f"{name} shared by {shares}" if shares > 1 else name


def _version(labels: Mapping[str, str], prefix: str) -> float | None:
    major, minor = _number(labels.get(f"{prefix}.major")), _number(labels.get(f"{prefix}.minor"))
    return None if major is None else float(f"{major}.{minor or 0}")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
