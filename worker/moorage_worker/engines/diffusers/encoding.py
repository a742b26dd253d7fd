"""Turns what a pipeline made into files.

A video is H.264 in MP4, which every browser plays, written by PyAV: its wheel carries the encoder, so neither
a program nor a system package has to be there, and nothing touches the disk.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import numpy as np
from PIL import Image

from moorage_worker.engines.media import Media


def png(image: Image.Image) -> Media:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Media(file.getvalue(), "image/png", image.width, image.height)


def mp4(frames: Sequence[Image.Image], fps: int) -> Media:
    """`frames` of one size, shown `fps` a second. An odd side loses its last line, as colours are halved.

    The encoder does not promise the same bytes for the same frames, only the same look.
    """
    width, height = frames[0].width // 2 * 2, frames[0].height // 2 * 2
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18"}
        for frame in frames:
            pixels = np.asarray(frame.convert("RGB"))[:height, :width]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(stream.encode())
    return Media(file.getvalue(), "video/mp4", width, height, len(frames))
