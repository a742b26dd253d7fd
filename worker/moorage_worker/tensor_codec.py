"""Between JSON and numpy, by the datatypes of the Open Inference Protocol.

The protocol's names are also the ones that `TensorSpec` carries, so that one table serves every face.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from moorage_worker.engines.base import ANY_SIZE, Array, TensorSpec
from moorage_worker.errors import BadInput
from moorage_worker.json_types import Json

NUMPY_TYPES: dict[str, DTypeLike] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
_ORIGINS = {"BOOL": "b", "BYTES": "U"}


def array_from_json(data: Json, datatype: str, field: str) -> Array:
    """A nested list (or one value) as an array of that datatype.

    Booleans, numbers and strings are not turned into each other, and a number must fit its datatype.
    Raises BadInput naming the field.
    """
    try:
        loose = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise BadInput(field, "shape", "must be a list whose rows have equal lengths") from error
    if loose.size == 0:
        return np.empty(loose.shape, dtype=NUMPY_TYPES[datatype])
    if loose.dtype.kind in "fO" and "INT" in datatype:
        # numpy takes whole numbers of 64 bits with and without sign for floats, and would round them.
        return _exact_integers(data, datatype, field)
    if loose.dtype.kind not in _accepted_kinds(datatype):
        raise BadInput(field, "datatype", f"must hold {_values_of(datatype)} only ({datatype})")
    if datatype == "BYTES":
        return loose.astype(np.object_)
    return _narrow(loose, datatype, field)


def _exact_integers(data: Json, datatype: str, field: str) -> Array:
    items = np.asarray(data, dtype=np.object_)
    if not all(type(item) is int for item in items.ravel()):
        raise BadInput(field, "datatype", f"must hold {_values_of(datatype)} only ({datatype})")
    return _narrow(items, datatype, field)


def _accepted_kinds(datatype: str) -> str:
    if datatype in _ORIGINS:
        return _ORIGINS[datatype]
    return "iuf" if datatype.startswith("FP") else "iu"


def _values_of(datatype: str) -> str:
    if datatype in _ORIGINS:
        return "booleans" if datatype == "BOOL" else "strings"
    return "numbers" if datatype.startswith("FP") else "whole numbers"


def _narrow(loose: Array, datatype: str, field: str) -> Array:
    wanted = np.dtype(NUMPY_TYPES[datatype])
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if int(loose.min()) < limits.min or int(loose.max()) > limits.max:
            raise BadInput(field, "range", f"holds numbers beyond {datatype} ({limits.min} to {limits.max})")
    with np.errstate(over="ignore"):
        exact = loose.astype(wanted)
    if wanted.kind == "f" and not np.isfinite(exact).all():
        raise BadInput(field, "range", f"holds numbers beyond {datatype}")
    return exact


def nested_json(array: Array) -> object:
    """Something the JSON encoder writes as nested lists of the array's shape."""
    if array.dtype.kind in "OSU":
        return np.vectorize(_text, otypes=[object])(array).tolist() if array.size else array.tolist()
    # The encoder takes a scalar, but not an array without dimensions.
    return np.ascontiguousarray(array) if array.ndim else array[()]


def flat_json(array: Array) -> object:
    """Something the JSON encoder writes as one flat list, row by row."""
    return nested_json(array.ravel())


def _text(item: object) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def datatype_of(array: Array) -> str:
    """The protocol's name for an array's element type."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    return next(name for name, numpy_type in NUMPY_TYPES.items() if np.dtype(numpy_type) == array.dtype)


def check_shape(shape: Sequence[int], spec: TensorSpec, field: str) -> None:
    """Raise BadInput unless a shape is one that the model takes."""
    fits = len(shape) == len(spec.shape) and all(
        want in (ANY_SIZE, got) for want, got in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        got = ",".join(str(size) for size in shape)
        raise BadInput(field, "shape", f"expected {spec.shape_text()}, got [{got}]")
