"""What all tasks of the ONNX engine have in common: a graph, and tensors straight through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moorage_worker.engines.base import Array, Signature
from moorage_worker.engines.onnx.graph import Graph
from moorage_worker.errors import LoadFailed


class GraphEngine:
    """Base of the tasks. A task adds `task`, `infer` and `warm_up`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @property
    def signature(self) -> Signature:
        return self.graph.signature

    def infer_tensors(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        return self.graph.run(inputs, outputs)


def logits_output(graph: Graph) -> str:
    """The output that holds [items, labels]: `logits`, else the first. Raises LoadFailed on another rank."""
    spec = graph.output("logits") or graph.signature.outputs[0]
    if len(spec.shape) != 2:
        raise LoadFailed(f"a classifier's graph must put out [N,labels]; {spec.name} is {spec.shape_text()}")
    return spec.name
