"""Decodes a picture file out of a request. Limits are checked before it is decoded; nothing is fetched."""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image, ImageOps

from moorage_worker.errors import BadInput

MAX_PIXELS = 40_000_000
_FORMATS = ("PNG", "JPEG")


def decode_image(text: str, field: str) -> Image.Image:
    """The picture in base64, or in a data URL of it, turned upright. Raises BadInput naming `field`."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(field, "encoding", "must be a base64 string of a PNG or JPEG file") from error
    try:
        # Opening reads the header only, so the size is known before any pixel is decoded.
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadInput(
                field, "size", f"must have at most {MAX_PIXELS} pixels, got {image.width}x{image.height}"
            )
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(field, "format", "must be the base64 of a whole PNG or JPEG file") from error
