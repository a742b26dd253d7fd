"""What one replica asks of a node: for offers, which must know whether it fits, and for its pod, which must
ask for the same."""

from __future__ import annotations

from moorage.domain.compute import GIB
from moorage.domain.workload import Workload
from moorage_kubernetes.nodes import Amounts

# Where nothing was said. Weights on their way to an accelerator are mapped from files, which the kernel may
# drop again, so that main memory holds the program and little else.
DEFAULT_CPUS = 1.0
GPU_HOST_MEMORY = 4 * GIB


def replica_demand(workload: Workload | None, memory_bytes: int, gpus: int) -> Amounts:
    """Requests of one replica that needs `memory_bytes` (of the accelerators if it has any), on an offer with
    `gpus`. Of an image the need is not known, and 0."""
    asked = (workload or Workload()).resources
    host = memory_bytes if gpus == 0 else min(memory_bytes, GPU_HOST_MEMORY)
    return Amounts(
        cpu=asked.cpu_request if asked.cpu_request is not None else asked.cpu_limit or DEFAULT_CPUS,
        memory=asked.memory_request if asked.memory_request is not None else asked.memory_limit or host,
        gpus=gpus,
        pods=1,
    )
