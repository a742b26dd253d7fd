"""Whatever a safetensors header holds, no estimate is below the bytes of its tensors."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from huggingface_hub import parse_local_safetensors_file_metadata
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage.adapters.hub.tensors import header_of, items_of, main_dtype
from moorage.adapters.registry import catalog
from moorage.domain.estimate import runtime_options
from moorage.domain.model import Attention, ModelProfile, WeightFormat, WeightSet

BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "I32": 32, "U8": 8, "BOOL": 8}
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(BITS)), st.lists(st.integers(0, 70_000), max_size=3)),
    max_size=12,
)
ATTENTION = st.none() | st.builds(
    Attention,
    layers=st.integers(1, 100),
    heads=st.integers(1, 128),
    kv_heads=st.integers(1, 32),
    head_dim=st.integers(1, 512),
    max_positions=st.none() | st.integers(1, 200_000),
    sliding_window=st.none() | st.integers(1, 5_000),
)
KINDS = st.sampled_from(
    [
        ("transformers", "text-generation", False),
        ("transformers", "text-classification", False),
        ("sentence-transformers", "sentence-similarity", False),
        ("diffusers", "text-to-image", True),
    ]
)


def write(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> int:
    """A safetensors file with this header and no data; returns the bytes of its tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # Any: JSON of two forms
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return at


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(shards=st.lists(TENSORS, min_size=1, max_size=3), attention=ATTENTION, kind=KINDS)
def test_no_estimate_is_below_the_tensors(
    tmp_path: Path,
    shards: list[dict[str, tuple[str, list[int]]]],
    attention: Attention | None,
    kind: tuple[str, str, bool],
) -> None:
    files = [tmp_path / f"{number}.safetensors" for number in range(len(shards))]
    tensor_bytes = sum(write(path, tensors) for path, tensors in zip(files, shards, strict=True))
    headers = [header_of(parse_local_safetensors_file_metadata(path), path.name, None) for path in files]
    found = items_of(headers, "weights", "the files")
    assert sum(item.bytes for item in found) == tensor_bytes

    library, task, pipeline = kind
    profile = ModelProfile(
        repo_id="acme/generated",
        revision="0" * 40,
        weights=(WeightSet(WeightFormat.SAFETENSORS, found, main_dtype(found, None), pipeline),),
        task=task,
        library=library,
        attention=attention if task == "text-generation" else None,
    )
    for option in runtime_options(profile, catalog()):
        assert option.estimate.total_bytes >= tensor_bytes
        assert option.estimate.total_bytes == sum(item.bytes for item in option.estimate.items)
        assert catalog().usable_bytes(option.estimate.min_vram_gb) >= option.estimate.total_bytes
        for concession in option.concessions:
            assert tensor_bytes <= concession.total_bytes <= option.estimate.total_bytes
