"""Decodes a WAV file out of a request, into what a speech model hears."""

from __future__ import annotations

import base64
import binascii
import io
import wave
from math import gcd

import numpy as np
from scipy.signal import resample_poly

from moorage_worker.engines.base import Array
from moorage_worker.errors import BadInput

MAX_SECONDS = 3600
MIN_RATE, MAX_RATE = 4_000, 192_000  # samples a second


def decode_wav(text: str, field: str, rate: int) -> Array:
    """The sound in base64, or in a data URL of it, as float32 [samples] from -1 to 1 at `rate` a second.

    Channels are averaged. Raises BadInput naming `field`.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(field, "encoding", "must be a base64 string of a WAV file") from error
    try:
        with wave.open(io.BytesIO(raw)) as file:
            has, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            _check(file.getnframes(), has, field)
            samples = _samples(file.readframes(file.getnframes()), width)
    except (wave.Error, EOFError, ValueError) as error:
        raise BadInput(field, "format", "must be the base64 of a WAV file with PCM samples") from error
    if samples.size < channels:
        raise BadInput(field, "format", "must be the base64 of a whole WAV file")
    whole = samples.size // channels * channels  # a file that was cut may end within a sample
    sound = samples[:whole].reshape(-1, channels).mean(axis=1)
    if has != rate:
        shared = gcd(has, rate)
        sound = resample_poly(sound, rate // shared, has // shared)
    return np.asarray(sound, dtype=np.float32)


def _check(frames: int, rate: int, field: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise BadInput(field, "rate", f"must have {MIN_RATE} to {MAX_RATE} samples a second, got {rate}")
    if not 0 < frames <= MAX_SECONDS * rate:
        raise BadInput(field, "size", f"must be more than 0 and at most {MAX_SECONDS} seconds long")


def _samples(data: bytes, width: int) -> Array:
    """PCM of `width` bytes a sample, little-endian; 8 bits are unsigned, the others signed."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:
        data = data[: len(data) // 3 * 3]
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        width, data = 4, wide.tobytes()
    data = data[: len(data) // width * width]
    whole: Array = np.frombuffer(data, f"<i{width}")
    return np.asarray(whole / 2 ** (8 * width - 1), dtype=np.float32)
