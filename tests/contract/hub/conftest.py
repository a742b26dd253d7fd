"""Tiny repositories made on the spot, and a Hub on loopback that serves them."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.testing.hub import HubStandIn

Content = bytes | str | dict[str, Any]  # Any: any JSON object
MakeRepo = Callable[[dict[str, Content]], Path]
Safetensors = Callable[[dict[str, tuple[str, list[int]]]], bytes]

_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1}


@pytest.fixture
async def hub() -> AsyncIterator[HubStandIn]:
    async with HubStandIn() as running:
        yield running


@pytest.fixture
def make_repo(tmp_path: Path) -> MakeRepo:
    """Writes a folder of files: bytes, text, or JSON."""
    made = 0

    def make(files: dict[str, Content]) -> Path:
        nonlocal made
        made += 1
        folder = tmp_path / f"repo{made}"
        folder.mkdir()
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(content) if isinstance(content, dict) else content
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return folder

    return make


@pytest.fixture
def safetensors() -> Safetensors:
    """A whole safetensors file of zeros, from {tensor: (dtype, shape)}."""

    def build(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # Any: JSON of two forms
        at = 0
        for name, (dtype, shape) in tensors.items():
            size = math.prod(shape) * _BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + bytes(at)

    return build
