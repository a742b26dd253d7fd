"""A model repository with a file that is large enough to travel in parts."""

from __future__ import annotations

import shutil
from pathlib import Path

from worker_harness.running import DIGITS

LARGE = "model.onnx_data"  # what the ONNX engine fetches beside a graph of that name
PART_MIB = 5  # S3 takes no smaller parts


def digits_copy(folder: Path) -> Path:
    """The sample model among files that nobody needs to download."""
    shutil.copytree(DIGITS, folder)
    for name in ("onnx/model_int8.onnx", "pytorch_model.bin", "tf_model.h5"):
        (folder / name).write_bytes(b"x" * 1000)
    return folder


def large_file(path: Path, mebibytes: int) -> Path:
    """Each mebibyte is another one, so that parts in the wrong order show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for number in range(mebibytes):
            file.write(number.to_bytes(4, "big") * (1024**2 // 4))
    return path
