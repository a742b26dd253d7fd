"""Task `tensors`: any graph, by the names of its own inputs and outputs."""

from __future__ import annotations

import numpy as np

from moorage_worker.engines.base import QUIET, Array, Run
from moorage_worker.engines.onnx.graph_engine import GraphEngine
from moorage_worker.engines.parameters import Parameters
from moorage_worker.errors import BadInput
from moorage_worker.json_types import Json, JsonObject, kind
from moorage_worker.model_layout import TENSORS
from moorage_worker.tensor_codec import NUMPY_TYPES, array_from_json, check_shape, nested_json

# Sizes tried for free dimensions; some graphs (windows, strides) cannot take the smallest.
_WARM_UP_SIZES = (1, 16, 256)


class TensorRunner(GraphEngine):
    """Answers `{"input name": nested list}` with `{"output name": nested list}`."""

    task = TENSORS

    def warm_up(self) -> None:
        """Runs zeros; the first dimension is 1, other free ones grow until the graph takes them."""
        *smaller, largest = _WARM_UP_SIZES
        if not any(self._takes(size) for size in smaller):
            self.graph.run(self._zeros(largest))

    def _takes(self, size: int) -> bool:
        try:
            self.graph.run(self._zeros(size))
        except Exception:  # ONNX Runtime's exceptions share no base but Exception
            return False
        return True

    def _zeros(self, size: int) -> dict[str, Array]:
        feeds = {}
        for spec in self.signature.inputs:
            shape = [known if known > 0 else size if i else 1 for i, known in enumerate(spec.shape)]
            empty = "" if spec.datatype == "BYTES" else 0
            feeds[spec.name] = np.full(shape, empty, dtype=NUMPY_TYPES[spec.datatype])
        return feeds

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        Parameters(parameters, ())
        if not isinstance(inputs, dict):
            raise BadInput(
                "inputs", "type", f"must be an object of input name to nested list, got {kind(inputs)}"
            )
        for name in inputs:
            if name not in self.graph.input_names:
                known = ", ".join(self.graph.input_names)
                raise BadInput(f"inputs.{name}", "unknown", f"is not an input of this model (known: {known})")
        outputs = self.graph.run({spec.name: self._feed(spec.name, inputs) for spec in self.signature.inputs})
        return {name: nested_json(array) for name, array in outputs.items()}

    def _feed(self, name: str, inputs: JsonObject) -> Array:
        field = f"inputs.{name}"
        if name not in inputs:
            raise BadInput(field, "required", "is missing")
        spec = next(spec for spec in self.signature.inputs if spec.name == name)
        array = array_from_json(inputs[name], spec.datatype, field)
        check_shape(array.shape, spec, field)
        return array
