"""NVIDIA GPUs of this machine, as `nvidia-smi` tells them. Without that program there are none."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass

MIB = 1024**2
RUNTIME_OVERHEAD = 600 * MIB  # CUDA's own context in each process
_QUERY = "index,uuid,name,memory.total,memory.free,compute_cap"
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory in bytes."""

    index: int
    uuid: str
    name: str
    total: int
    free: int
    compute_capability: float | None

    @property
    def offer_id(self) -> str:
        return f"local-gpu-{self.index}"

    @property
    def usable(self) -> int:
        return max(0, self.total - RUNTIME_OVERHEAD)


def read_gpus() -> list[Gpu]:
    """Blocks for as long as the program takes. A program that fails or hangs means: no GPU to sell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> list[Gpu]:
    """One row a GPU. A row that is not as asked for (`[N/A]` in a MIG parent, an error line) is left out."""
    return [gpu for row in csv.reader(text.splitlines(), skipinitialspace=True) if (gpu := _parse(row))]


def _parse(row: list[str]) -> Gpu | None:
    try:
        index, uuid, name, total, free, capability = (field.strip() for field in row)
        return Gpu(
            int(index),
            uuid,
            name.removeprefix("NVIDIA "),
            int(total) * MIB,
            int(free) * MIB,
            float(capability) if capability.replace(".", "", 1).isdigit() else None,
        )
    except ValueError:
        return None
