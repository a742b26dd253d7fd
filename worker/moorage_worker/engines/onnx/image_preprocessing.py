"""Prepares images as the repository's `preprocessor_config.json` says: size, scale, mean and deviation.

The order and the defaults are those of the image processors that write this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from moorage_worker.engines.base import Array
from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import Json, JsonObject

_BYTE_TO_UNIT = 1 / 255


@dataclass(frozen=True, slots=True)
class ImagePreprocessing:
    """From a Pillow image to a float32 array [channels, height, width].

    `resize` is an exact (width, height), or one number for the shorter edge, or None to keep the size.
    `crop` is (width, height) around the centre, or None. `mean` and `deviation` are by channel.
    """

    resize: tuple[int, int] | int | None
    resample: Image.Resampling
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply(self, image: Image.Image) -> Array:
        sized = self._resized(image)
        if self.crop is not None:
            sized = _center_crop(sized, self.crop)
        pixels = np.asarray(sized, dtype=np.float32)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        mean = np.array(self.mean, dtype=np.float32)[:, None, None]
        deviation = np.array(self.deviation, dtype=np.float32)[:, None, None]
        return np.asarray((planes * np.float32(self.scale) - mean) / deviation, dtype=np.float32)

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        target = self.resize if isinstance(self.resize, tuple) else _by_shorter_edge(image.size, self.resize)
        return image if image.size == target else image.resize(target, self.resample)


def _by_shorter_edge(size: tuple[int, int], edge: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return edge, max(1, int(edge * height / width))
    return max(1, int(edge * width / height)), edge


def _center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # Pillow fills with black where the crop is larger than the image.
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def read_preprocessing(config: JsonObject, channels: int) -> ImagePreprocessing:
    """Read `preprocessor_config.json`. Raises LoadFailed naming the key that is missing or wrong."""
    crop = _size(config, "crop_size") if config.get("do_center_crop") is True else None
    rescale = config.get("do_rescale", True) is not False
    normalize = config.get("do_normalize", True) is not False
    return ImagePreprocessing(
        resize=_resize(config) if config.get("do_resize", True) is not False else None,
        resample=_resampling(config),
        crop=crop if isinstance(crop, tuple) or crop is None else (crop, crop),
        scale=_number(config.get("rescale_factor", _BYTE_TO_UNIT), "rescale_factor") if rescale else 1.0,
        mean=_by_channel(config, "image_mean", channels) if normalize else (0.0,) * channels,
        deviation=_by_channel(config, "image_std", channels) if normalize else (1.0,) * channels,
    )


def _resize(config: JsonObject) -> tuple[int, int] | int:
    size = _size(config, "size")
    crop_share = config.get("crop_pct")
    if isinstance(size, int) and isinstance(crop_share, float) and 0 < crop_share <= 1:
        return int(size / crop_share)
    # A bare number with no crop after it means a square.
    if (
        isinstance(config.get("size"), int)
        and config.get("do_center_crop") is not True
        and isinstance(size, int)
    ):
        return size, size
    return size


def _size(config: JsonObject, key: str) -> tuple[int, int] | int:
    size = config.get(key)
    if isinstance(size, int) and size > 0:
        return size
    if isinstance(size, dict):
        width, height, edge = size.get("width"), size.get("height"), size.get("shortest_edge")
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            return width, height
        if isinstance(edge, int) and edge > 0:
            return edge
    raise LoadFailed(f"preprocessor_config.json: {key} must give height and width, or shortest_edge")


def _resampling(config: JsonObject) -> Image.Resampling:
    value = config.get("resample", Image.Resampling.BILINEAR.value)
    known = {filter_.value: filter_ for filter_ in Image.Resampling}
    if not isinstance(value, int) or value not in known:
        raise LoadFailed("preprocessor_config.json: resample must be a Pillow filter from 0 to 5")
    return known[value]


def _by_channel(config: JsonObject, key: str, channels: int) -> tuple[float, ...]:
    values = config.get(key)
    items: Sequence[Json] = values if isinstance(values, list) else [values] * channels
    if len(items) != channels:
        raise LoadFailed(
            f"preprocessor_config.json: {key} must have {channels} numbers, one for each channel"
        )
    numbers = tuple(_number(item, key) for item in items)
    if key == "image_std" and 0.0 in numbers:
        raise LoadFailed(f"preprocessor_config.json: {key} must not be 0")
    return numbers


def _number(value: Json, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LoadFailed(f"preprocessor_config.json: {key} must be a number")
    return float(value)
