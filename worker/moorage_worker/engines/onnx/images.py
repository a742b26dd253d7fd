"""Decodes images from a request: base64 PNG or JPEG, or nested lists of pixel numbers from 0 to 255."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from moorage_worker.engines.image_files import decode_image
from moorage_worker.errors import BadInput
from moorage_worker.json_types import Json, kind
from moorage_worker.tensor_codec import array_from_json

MAX_IMAGES = 64
_GRAY = "L"
_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """The images of one request, in the model's mode. `single` tells whether the caller sent one bare."""

    images: list[Image.Image]
    single: bool


def parse_images(inputs: Json, mode: str) -> ImageBatch:
    """Read one image or a list of up to MAX_IMAGES images, as Pillow images of `mode` ("L" or "RGB").

    An image is a base64 string, `{"image": base64 or pixels}`, or pixels as [H,W] or [H,W,C] with C 1 or 3.
    Raises BadInput naming the item.
    """
    if isinstance(inputs, list) and not _is_pixels(inputs):
        if not 1 <= len(inputs) <= MAX_IMAGES:
            raise BadInput("inputs", "size", f"must hold 1 to {MAX_IMAGES} images, got {len(inputs)}")
        images = [_parse_image(item, f"inputs[{i}]", mode) for i, item in enumerate(inputs)]
        return ImageBatch(images, single=False)
    return ImageBatch([_parse_image(inputs, "inputs", mode)], single=True)


def _is_pixels(value: list[Json]) -> bool:
    """Whether a list is one image by its own nesting, and not a list of images."""
    sizes: list[int] = []
    item: Json = value
    while isinstance(item, list):
        sizes.append(len(item))
        item = item[0] if item else None
    return len(sizes) == 2 or (len(sizes) == 3 and sizes[2] in _CHANNELS)


def _parse_image(value: Json, field: str, mode: str) -> Image.Image:
    if isinstance(value, dict):
        foreign = [name for name in value if name != "image"]
        if foreign:
            raise BadInput(f"{field}.{foreign[0]}", "unknown", "is not a field of an image (known: image)")
        if "image" not in value:
            raise BadInput(f"{field}.image", "required", "is missing")
        value, field = value["image"], f"{field}.image"
    if isinstance(value, str):
        return decode_image(value, field).convert(mode)
    if isinstance(value, list):
        return _from_pixels(value, field).convert(mode)
    raise BadInput(field, "type", f"must be a base64 string or a list of pixels, got {kind(value)}")


def _from_pixels(value: list[Json], field: str) -> Image.Image:
    pixels = array_from_json(value, "FP32", field)
    gray_or_color = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _CHANNELS)
    if not gray_or_color or pixels.size == 0:
        got = ",".join(str(size) for size in pixels.shape)
        raise BadInput(
            field, "shape", f"expected pixels as [H,W] or [H,W,C] with 1 or 3 channels, got [{got}]"
        )
    if pixels.min() < 0 or pixels.max() > 255:
        raise BadInput(field, "range", "pixels must be numbers from 0 to 255")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def mode_for(channels: int) -> str:
    """The Pillow mode of a model with 1 or 3 channels."""
    return _GRAY if channels == 1 else "RGB"


def as_base64_png(image: Image.Image) -> str:
    """An image as a caller would send it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
