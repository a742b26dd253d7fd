"""One ONNX graph in one ONNX Runtime session, with its inputs and outputs in the worker's own terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from moorage_worker.engines.base import ANY_SIZE, Array, Signature, TensorSpec
from moorage_worker.errors import LoadFailed, cause_line

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ERRORS_ONLY = 3


class Graph:
    """A loaded graph. `run` may be called from several threads at once."""

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature) -> None:
        self._session = session
        self.signature = signature
        self.input_names = tuple(spec.name for spec in signature.inputs)
        self.output_names = tuple(spec.name for spec in signature.outputs)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """The named outputs (all when none is named) for one array per graph input."""
        names = list(outputs or self.output_names)
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def output(self, name: str) -> TensorSpec | None:
        return next((spec for spec in self.signature.outputs if spec.name == name), None)


def open_graph(path: Path, threads: int) -> Graph:
    """Load a graph on CPU. Raises LoadFailed with ONNX Runtime's own cause."""
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin between requests take the cores from the worker's neighbours.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        raise LoadFailed(f"{path.name} cannot be loaded by ONNX Runtime: {cause_line(error)}") from error
    return Graph(session, _signature_of(session))


def _signature_of(session: onnxruntime.InferenceSession) -> Signature:
    foreign = [arg for arg in session.get_inputs() if arg.type not in _DATATYPES]
    if foreign:
        raise LoadFailed(f"graph input {foreign[0].name} is a {foreign[0].type}, which is not supported")
    # Sequences and maps (classic classifiers) are left out; an export without them is advised if all are.
    outputs = [arg for arg in session.get_outputs() if arg.type in _DATATYPES]
    if not outputs:
        raise LoadFailed("the graph has no tensor among its outputs; export it without maps (zipmap off)")
    return Signature(tuple(map(_spec, session.get_inputs())), tuple(map(_spec, outputs)))


def _spec(arg: onnxruntime.NodeArg) -> TensorSpec:
    # A size that is named or unknown comes as a string or None.
    sizes = tuple(size if isinstance(size, int) and size >= 0 else ANY_SIZE for size in arg.shape or ())
    return TensorSpec(arg.name, _DATATYPES[arg.type], sizes)
