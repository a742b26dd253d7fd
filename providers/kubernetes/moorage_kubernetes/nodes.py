"""What the nodes of a cluster have, and what of it is free: read from Node and Pod objects, pure.

Free is what the scheduler counts: allocatable minus the requests of pods that are bound and not over. How
busy a node really is plays no part in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar  # Any: the client's models are not typed

from moorage_kubernetes import gpus
from moorage_kubernetes.quantities import parse_count, parse_cpu

GPU_RESOURCE = "nvidia.com/gpu"
# Pods that ask for a GPU tolerate this taint; the drivers' installers put it on GPU nodes.
TOLERATED_TAINTS = frozenset({GPU_RESOURCE})
_REPELLING = frozenset({"NoSchedule", "NoExecute"})
_OVER = frozenset({"Succeeded", "Failed"})

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Amounts:
    """CPU in cores, memory in bytes, accelerators that pods can ask for, pods."""

    cpu: float = 0.0
    memory: int = 0
    gpus: int = 0
    pods: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.cpu + other.cpu,
            self.memory + other.memory,
            self.gpus + other.gpus,
            self.pods + other.pods,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        """Never below nothing: a node may be overcommitted after its resources shrank."""
        return Amounts(
            max(0.0, round(self.cpu - other.cpu, 6)),
            max(0, self.memory - other.memory),
            max(0, self.gpus - other.gpus),
            max(0, self.pods - other.pods),
        )

    def at_least(self, other: Amounts) -> Amounts:
        """The larger of each."""
        return Amounts(
            max(self.cpu, other.cpu),
            max(self.memory, other.memory),
            max(self.gpus, other.gpus),
            max(self.pods, other.pods),
        )

    def times(self, one: Amounts) -> int:
        """How often `one` fits in here."""
        ratios = [
            int(have / asked + 1e-9)
            for have, asked in (
                (self.cpu, one.cpu),
                (self.memory, one.memory),
                (self.gpus, one.gpus),
                (self.pods, one.pods),
            )
            if asked > 0
        ]
        return min(ratios, default=0)


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str | None
    effect: str


@dataclass(frozen=True, slots=True)
class NodeState:
    """`gpu_product` as its labels call it; `gpu_memory_bytes` is what one `nvidia.com/gpu` of it holds, which
    is a share of a card where cards are partitioned or shared."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    ready: bool
    allocatable: Amounts
    free: Amounts
    gpu_product: str | None = None
    gpu_memory_bytes: int | None = None

    @property
    def closed(self) -> str | None:
        """Why no pod of ours can go there; None if one can."""
        if not self.ready:
            return "not ready"
        if self.unschedulable:
            return "cordoned"
        repelling = [t for t in self.taints if t.effect in _REPELLING and t.key not in TOLERATED_TAINTS]
        if repelling:
            return f"tainted {repelling[0].key}"
        if self.labels.get("kubernetes.io/os", "linux") != "linux":
            return "not Linux"
        return None

    def matches(self, selector: Mapping[str, str]) -> bool:
        return all(self.labels.get(key) == value for key, value in selector.items())


def node_states(nodes: Sequence[Any], pods: Sequence[Any]) -> tuple[NodeState, ...]:
    """Of `V1Node`s and `V1Pod`s. Amounts that cannot be read count as none."""
    taken: defaultdict[str, Amounts] = defaultdict(Amounts)
    for pod in pods:
        node = pod.spec.node_name
        if node and (pod.status is None or pod.status.phase not in _OVER):
            taken[node] += requests_of(pod)
    return tuple(_state(node, taken[node.metadata.name]) for node in nodes)


def _state(node: Any, taken: Amounts) -> NodeState:
    labels = dict(node.metadata.labels or {})
    status, spec = node.status, node.spec
    allocatable = _amounts((status.allocatable if status else None) or {})
    accelerator = gpus.accelerator_of(labels) if allocatable.gpus else None
    return NodeState(
        name=node.metadata.name,
        labels=labels,
        taints=tuple(Taint(t.key, t.value, t.effect) for t in (spec.taints if spec else None) or ()),
        unschedulable=bool(spec and spec.unschedulable),
        ready=any(
            c.type == "Ready" and c.status == "True" for c in (status.conditions if status else None) or ()
        ),
        allocatable=allocatable,
        free=allocatable - taken,
        gpu_product=accelerator.product if accelerator else None,
        gpu_memory_bytes=accelerator.memory_bytes if accelerator else None,
    )


def requests_of(pod: Any) -> Amounts:
    """What the scheduler reserves for a pod: its containers and sidecars together, or the init container that
    needs most beside the sidecars before it, and the overhead of its runtime class. Requests of the pod as a
    whole take the place of that sum."""
    containers = sum((_requests(c) for c in pod.spec.containers or ()), Amounts())
    sidecars, peak = Amounts(), Amounts()
    for container in pod.spec.init_containers or ():
        if container.restart_policy == "Always":
            sidecars += _requests(container)
            peak = peak.at_least(sidecars)
        else:
            peak = peak.at_least(sidecars + _requests(container))
    needed = (containers + sidecars).at_least(peak)
    whole = getattr(pod.spec, "resources", None)
    if whole is not None and whole.requests:
        asked = _amounts(whole.requests)
        needed = Amounts(asked.cpu or needed.cpu, asked.memory or needed.memory, needed.gpus)
    return needed + _amounts(pod.spec.overhead or {}) + Amounts(pods=1)


def _requests(container: Any) -> Amounts:
    """A limit without a request is a request, as it is to the API server."""
    resources = container.resources
    if resources is None:
        return Amounts()
    return _amounts({**(resources.limits or {}), **(resources.requests or {})})


def _amounts(quantities: Mapping[str, str]) -> Amounts:
    return Amounts(
        cpu=_read(parse_cpu, quantities.get("cpu")),
        memory=_read(parse_count, quantities.get("memory")),
        gpus=_read(parse_count, quantities.get(GPU_RESOURCE)),
        pods=_read(parse_count, quantities.get("pods")),
    )


def _read(parse: Callable[[str], Number], text: str | None) -> Number:
    try:
        return parse(text or "0")
    except ValueError:
        return parse("0")
