"""One inference of the Open Inference Protocol: JSON tensors in, JSON tensors out."""

from __future__ import annotations

from math import prod

from moorage_worker.engines.base import Array, Signature, TensorSpec
from moorage_worker.errors import BadInput, EngineFailed, RequestError, cause_line
from moorage_worker.faces.json_body import encode, object_field, parse_object, refuse_unknown
from moorage_worker.json_types import Json, kind
from moorage_worker.readiness import LoadedModel
from moorage_worker.tensor_codec import array_from_json, check_shape, datatype_of, flat_json

_FIELDS = ("id", "parameters", "inputs", "outputs")
_TENSOR_FIELDS = ("name", "shape", "datatype", "parameters", "data")


def answer(loaded: LoadedModel, model_id: str, raw: bytes) -> bytes:
    """Answer one request body. Raises BadInput, MalformedBody or EngineFailed."""
    body = parse_object(raw)
    refuse_unknown(body, _FIELDS)
    object_field(body, "parameters")
    signature = loaded.engine.signature
    request_id = body.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadInput("id", "type", f"must be a string, got {kind(request_id)}")
    feeds = _read_inputs(body.get("inputs"), signature)
    wanted = _read_outputs(body.get("outputs"), signature)
    try:
        results = loaded.engine.infer_tensors(feeds, wanted)
    except RequestError:
        raise
    except Exception as error:  # whatever the runtime raises is its failure, told without a traceback
        raise EngineFailed(cause_line(error)) from error
    response: dict[str, object] = {"model_name": model_id, "model_version": loaded.version}
    if request_id is not None:
        response["id"] = request_id
    response["outputs"] = [_write_tensor(name, array) for name, array in results.items()]
    return encode(response)


def _read_inputs(given: Json, signature: Signature) -> dict[str, Array]:
    if not isinstance(given, list):
        raise BadInput("inputs", "type", f"must be a list of tensors, got {kind(given)}")
    specs = {spec.name: spec for spec in signature.inputs}
    feeds: dict[str, Array] = {}
    for i, tensor in enumerate(given):
        name, array = _read_tensor(tensor, specs, f"inputs[{i}]")
        if name in feeds:
            raise BadInput(f"inputs[{i}].name", "duplicate", f"{name!r} is given twice")
        feeds[name] = array
    missing = [name for name in specs if name not in feeds]
    if missing:
        raise BadInput("inputs", "required", f"tensor {missing[0]!r} is missing")
    return feeds


def _read_tensor(tensor: Json, specs: dict[str, TensorSpec], field: str) -> tuple[str, Array]:
    if not isinstance(tensor, dict):
        raise BadInput(field, "type", f"must be an object, got {kind(tensor)}")
    for name in tensor:
        if name not in _TENSOR_FIELDS:
            raise BadInput(f"{field}.{name}", "unknown", "is not a field of a tensor")
    spec = specs.get(str(tensor.get("name")))
    if spec is None:
        known = ", ".join(specs)
        raise BadInput(f"{field}.name", "unknown", f"{tensor.get('name')!r} is not an input (known: {known})")
    if tensor.get("datatype") != spec.datatype:
        raise BadInput(
            f"{field}.datatype", "datatype", f"{spec.name} is {spec.datatype}, got {tensor.get('datatype')!r}"
        )
    shape = _read_shape(tensor.get("shape"), f"{field}.shape")
    check_shape(shape, spec, f"{field}.shape")
    if not isinstance(tensor.get("data"), list):
        raise BadInput(f"{field}.data", "type", f"must be a list, got {kind(tensor.get('data'))}")
    data = array_from_json(tensor["data"], spec.datatype, f"{field}.data").ravel()
    elements = prod(shape)
    if data.size != elements:
        raise BadInput(f"{field}.data", "shape", f"shape {shape} needs {elements} elements, got {data.size}")
    return spec.name, data.reshape(shape)


def _read_shape(value: Json, field: str) -> list[int]:
    sizes = value if isinstance(value, list) else [value]
    shape = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size >= 0]
    if not isinstance(value, list) or len(shape) != len(sizes):
        raise BadInput(field, "type", "must be a list of whole numbers from 0")
    return shape


def _read_outputs(given: Json, signature: Signature) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise BadInput("outputs", "type", f"must be a list, got {kind(given)}")
    known = [spec.name for spec in signature.outputs]
    names = []
    for i, output in enumerate(given):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in known:
            raise BadInput(
                f"outputs[{i}].name", "unknown", f"{name!r} is not an output (known: {', '.join(known)})"
            )
        names.append(name)
    return names


def _write_tensor(name: str, array: Array) -> dict[str, object]:
    return {"name": name, "shape": array.shape, "datatype": datatype_of(array), "data": flat_json(array)}
