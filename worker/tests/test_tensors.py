"""Plain tensors by both faces: task `tensors` on `/infer`, and the Open Inference Protocol v2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from worker_harness import tiny_models
from worker_harness.running import StartWorker, WorkerProcess

from moorage_worker.errors import BadInput
from moorage_worker.faces.json_body import encode, parse_object
from moorage_worker.json_types import JsonObject
from moorage_worker.tensor_codec import NUMPY_TYPES, array_from_json, datatype_of, flat_json, nested_json


@pytest.fixture(scope="module")
def adder(start_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> WorkerProcess:
    return start_worker(tiny_models.adder(tmp_path_factory.mktemp("adder")), "--model-id", "adder").ready()


@pytest.fixture(scope="module")
def picker(start_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> WorkerProcess:
    return start_worker(tiny_models.picker(tmp_path_factory.mktemp("picker")), "--model-id", "picker").ready()


GOOD: dict[str, Any] = {"left": [[1, 2], [3, 4.5]], "right": [[10, 20], [30, 40]], "words": ["a", "é"]}


def test_named_lists_in_and_out(adder: WorkerProcess) -> None:
    assert adder.infer(GOOD) == {"sum": [[11, 22], [33, 44.5]], "same_words": ["a", "é"]}


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"left": [[1, 2, 3]]}, "inputs.left", "shape"),
        ({"left": [1, 2]}, "inputs.left", "shape"),
        ({"left": [[1], [2, 3]]}, "inputs.left", "shape"),
        ({"left": [["1", "2"]]}, "inputs.left", "datatype"),
        ({"left": [[True, False]]}, "inputs.left", "datatype"),
        ({"left": [[None, 1]]}, "inputs.left", "datatype"),
        ({"left": [[1e39, 1]]}, "inputs.left", "range"),
        ({"words": [1]}, "inputs.words", "datatype"),
        ({"middle": [[1, 2]]}, "inputs.middle", "unknown"),
    ],
)
def test_a_wrong_tensor_is_refused_by_field_and_rule(
    adder: WorkerProcess, change: JsonObject, field: str, rule: str
) -> None:
    error = adder.refused({**GOOD, **change})
    assert (error["field"], error["rule"]) == (field, rule)


def test_a_wrong_shape_tells_the_right_one(adder: WorkerProcess) -> None:
    assert adder.refused({**GOOD, "left": [[1, 2, 3]]})["message"] == "expected [N,2], got [1,3]"


def test_a_missing_tensor_and_a_wrong_body(adder: WorkerProcess) -> None:
    assert adder.refused({"left": [[1, 2]], "right": [[1, 2]]})["field"] == "inputs.words"
    assert adder.refused([1])["rule"] == "type"
    assert adder.refused(GOOD, top_k=1)["field"] == "parameters.top_k"
    for body, field in (
        ({}, "inputs"),
        ({"input": 1}, "input"),
        ({"inputs": 1, "parameters": []}, "parameters"),
    ):
        response = adder.post("/infer", body)
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == field


def test_an_engine_failure_is_500_with_its_cause(picker: WorkerProcess) -> None:
    assert picker.infer({"index": [2, 0]}) == {"value": [3.0, 1.0]}
    response = picker.post("/infer", {"inputs": {"index": [7]}})
    assert response.status_code == 500
    problem = response.json()
    assert problem["code"] == "engine_failed"
    assert "7" in problem["detail"]
    assert "Traceback" not in response.text
    picker.wait_for_line("engine")
    assert picker.infer({"index": [1]}) == {"value": [2.0]}


def tensor(name: str, datatype: str, shape: object, data: object) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def request(**change: dict[str, Any]) -> dict[str, Any]:
    tensors = {
        "left": tensor("left", "FP32", [2, 2], [1, 2, 3, 4.5]),
        "right": tensor("right", "FP32", [2, 2], [[10, 20], [30, 40]]),
        "words": tensor("words", "BYTES", [2], ["a", "é"]),
    }
    return {"inputs": list({**tensors, **change}.values())}


def test_protocol_answers_with_typed_tensors(adder: WorkerProcess) -> None:
    answer = adder.post("/v2/models/adder/infer", {"id": "42", **request()})
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "adder",
        "model_version": "local",
        "id": "42",
        "outputs": [
            tensor("sum", "FP32", [2, 2], [11, 22, 33, 44.5]),
            tensor("same_words", "BYTES", [2], ["a", "é"]),
        ],
    }


def test_protocol_gives_the_outputs_that_are_asked_for(adder: WorkerProcess) -> None:
    answer = adder.post("/v2/models/adder/infer", {**request(), "outputs": [{"name": "same_words"}]})
    assert [output["name"] for output in answer.json()["outputs"]] == ["same_words"]


BAD_REQUESTS = [
    (request(left=tensor("left", "FP64", [1, 2], [1, 2])), "inputs[0].datatype"),
    (request(left=tensor("left", "FP32", [2, 3], [1] * 6)), "inputs[0].shape: expected [N,2], got [2,3]"),
    (request(left=tensor("left", "FP32", [2, 2], [1, 2, 3])), "inputs[0].data"),
    (request(left=tensor("left", "FP32", [-1, 2], [1, 2])), "inputs[0].shape"),
    (request(left=tensor("left", "FP32", "2", [1, 2])), "inputs[0].shape"),
    (request(left=tensor("left", "FP32", [1, 2], "12")), "inputs[0].data"),
    (request(left=tensor("middle", "FP32", [1, 2], [1, 2])), "inputs[0].name"),
    (request(more=tensor("left", "FP32", [1, 2], [1, 2])), "given twice"),
    ({"inputs": []}, "'left' is missing"),
    ({"inputs": {}}, "inputs: must be a list"),
    ({}, "inputs: must be a list"),
    ({**request(), "outputs": [{"name": "product"}]}, "outputs[0].name"),
    ({**request(), "id": 4}, "id: must be a string"),
    ({**request(), "what": 4}, "what: is not a field"),
]


@pytest.mark.parametrize(("body", "cause"), BAD_REQUESTS)
def test_protocol_refuses_with_400_and_the_cause(adder: WorkerProcess, body: JsonObject, cause: str) -> None:
    answer = adder.post("/v2/models/adder/infer", body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert cause in answer.json()["error"]


def test_protocol_metadata_and_health(adder: WorkerProcess) -> None:
    assert adder.get("/v2").json()["name"] == "moorage-worker"
    assert adder.get("/v2/health/live").status_code == 200
    assert adder.get("/v2/health/ready").json() == {"ready": True}
    metadata = adder.get("/v2/models/adder").json()
    assert metadata["inputs"][0] == {"name": "left", "datatype": "FP32", "shape": [-1, 2]}
    assert adder.get("/v2/models/other").status_code == 404
    assert "error" in adder.get("/v2/models/other/ready").json()
    assert adder.get("/v2/nothing").json() == {"error": "Not Found"}


NUMERIC = [name for name in NUMPY_TYPES if name != "BYTES"]


@given(st.data())
def test_every_datatype_survives_json(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(NUMERIC))
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=4))
    elements = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else None
    array = data.draw(arrays.arrays(np.dtype(NUMPY_TYPES[datatype]), shape, elements=elements))
    assert datatype_of(array) == datatype
    body = parse_object(encode({"nested": nested_json(array), "flat": flat_json(array)}))
    for form in ("nested", "flat"):
        back = array_from_json(body[form], datatype, form).reshape(shape)
        assert back.dtype == array.dtype
        assert np.array_equal(back, array)


@given(st.sampled_from([n for n in NUMERIC if "INT" in n]), st.integers(-(2**63), 2**64 - 1))
def test_a_whole_number_fits_its_datatype_or_is_refused(datatype: str, value: int) -> None:
    limits = np.iinfo(np.dtype(NUMPY_TYPES[datatype]))
    if limits.min <= value <= limits.max:
        assert array_from_json([value], datatype, "x").tolist() == [value]
    else:
        with pytest.raises(BadInput, match="beyond"):
            array_from_json([value], datatype, "x")
