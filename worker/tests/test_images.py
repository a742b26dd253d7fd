"""Image classification: every way to send an image, and every wrong one."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from worker_harness.running import DIGITS, WorkerProcess

from moorage_worker.engines.onnx.image_preprocessing import read_preprocessing
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import Json, JsonObject

SAMPLE = next(iter(sorted((DIGITS / "samples").glob("*.png"))))


def as_base64(image: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_a_png_its_pixels_and_a_data_url_answer_alike(digits: WorkerProcess) -> None:
    image = Image.open(SAMPLE)
    encoded, pixels = as_base64(image), np.asarray(image).tolist()
    expected = digits.infer(encoded)
    assert digits.infer(pixels) == expected
    assert digits.infer({"image": pixels}) == expected
    assert digits.infer(f"data:image/png;base64,{encoded}") == expected
    assert digits.infer([[[value] for value in row] for row in pixels]) == expected
    assert digits.infer(as_base64(image.convert("RGB"))) == expected


def test_a_list_of_images_is_answered_in_order(digits: WorkerProcess) -> None:
    images = [np.asarray(Image.open(path)).tolist() for path in sorted((DIGITS / "samples").glob("*.png"))]
    single = [digits.infer(image, top_k=1) for image in images]
    together = digits.infer(images, top_k=1)
    labels = [[answer["label"] for answer in ranking] for ranking in together]
    assert labels == [[answer["label"] for answer in ranking] for ranking in single]
    assert labels[0] != labels[1]


def test_a_larger_jpeg_is_scaled_to_the_model(digits: WorkerProcess) -> None:
    large = Image.open(SAMPLE).resize((160, 160), Image.Resampling.NEAREST)
    [best] = digits.infer(as_base64(large, "JPEG"), top_k=1)
    assert best["label"] == SAMPLE.stem


def test_a_threshold_cuts_the_answer(digits: WorkerProcess) -> None:
    encoded = as_base64(Image.open(SAMPLE))
    everything = digits.infer(encoded)
    second = everything[1]["score"]
    assert digits.infer(encoded, confidence_threshold=second) == everything[:2]


BAD_IMAGES = [
    ("!", "inputs", "encoding"),
    (base64.b64encode(b"GIF89a, not an image").decode(), "inputs", "format"),
    (as_base64(Image.open(SAMPLE))[:60], "inputs", "format"),
    ([], "inputs", "size"),
    ([1, 2, 3], "inputs[0]", "type"),
    ([[1, 2], [3]], "inputs", "shape"),
    ([[1, 256]], "inputs", "range"),
    ([["a", "b"]], "inputs", "datatype"),
    ([[[[1, 2]]]], "inputs[0]", "shape"),
    (7, "inputs", "type"),
    (None, "inputs", "type"),
    ({}, "inputs.image", "required"),
    ({"image": "x", "url": "http://a"}, "inputs.url", "unknown"),
    (["!"], "inputs[0]", "encoding"),
]


@pytest.mark.parametrize(("inputs", "field", "rule"), BAD_IMAGES)
def test_a_wrong_image_is_refused_by_field_and_rule(
    digits: WorkerProcess, inputs: Json, field: str, rule: str
) -> None:
    error = digits.refused(inputs)
    assert (error["field"], error["rule"]) == (field, rule)


BAD_PARAMETERS = [
    ({"top_k": 0}, "parameters.top_k", "range"),
    ({"top_k": True}, "parameters.top_k", "range"),
    ({"confidence_threshold": 2}, "parameters.confidence_threshold", "range"),
    ({"function_to_apply": "relu"}, "parameters.function_to_apply", "choice"),
    ({"temperature": 1}, "parameters.temperature", "unknown"),
]


@pytest.mark.parametrize(("parameters", "field", "rule"), BAD_PARAMETERS)
def test_a_wrong_parameter_is_refused_by_name(
    digits: WorkerProcess, parameters: JsonObject, field: str, rule: str
) -> None:
    error = digits.refused(as_base64(Image.open(SAMPLE)), **parameters)
    assert (error["field"], error["rule"]) == (field, rule)


COLOR: JsonObject = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 4.0], "rescale_factor": 0.5}


def test_scale_mean_and_deviation_are_by_channel() -> None:
    preprocessing = read_preprocessing({**COLOR, "do_resize": False}, channels=3)
    image = Image.new("RGB", (4, 2), (10, 20, 40))
    planes = preprocessing.apply(image)
    assert planes.shape == (3, 2, 4)
    assert planes[:, 0, 0].tolist() == pytest.approx([4.9, 4.9, 4.925])


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ({"height": 5, "width": 7}, None, (5, 7)),
        ({"shortest_edge": 10}, None, (10, 20)),
        ({"shortest_edge": 10}, {"height": 6, "width": 8}, (6, 8)),
        (9, None, (9, 9)),
        (9, 9, (9, 9)),
    ],
)
def test_sizes_are_read_in_every_form_that_is_written(size: Json, crop: Json, expected: Any) -> None:
    config: JsonObject = {**COLOR, "size": size, "do_center_crop": crop is not None, "crop_size": crop}
    planes = read_preprocessing(config, channels=3).apply(Image.new("RGB", (40, 20)))
    assert planes.shape[1:] == expected


def test_the_crop_is_from_the_centre() -> None:
    pixels = np.zeros((6, 6, 3), dtype=np.uint8)
    pixels[2:4, 2:4] = 255
    config = {"do_resize": False, "do_normalize": False, "do_center_crop": True, "crop_size": 2}
    assert (read_preprocessing(config, channels=3).apply(Image.fromarray(pixels)) == 1.0).all()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"size": "big"}, "size"),
        ({"size": 8, "resample": 9}, "resample"),
        ({"size": 8, "image_mean": [0.5]}, "image_mean"),
        ({"size": 8, "image_mean": [0, 0, 0], "image_std": [1, 0, 1]}, "image_std"),
    ],
)
def test_a_wrong_preprocessor_config_names_its_key(config: JsonObject, key: str) -> None:
    with pytest.raises(LoadFailed, match=key):
        read_preprocessing(config, channels=3)
