"""The command `moorage-worker`, also `python -m moorage_worker`.

Only what the HTTP server needs is imported on this path; runtimes come in the loading thread.
"""

from __future__ import annotations

import asyncio
import os
import sys

from moorage_worker.ending import end_process
from moorage_worker.job_process import serve_jobs
from moorage_worker.logs import configure_logging
from moorage_worker.process import serve
from moorage_worker.settings import (
    JOBS,
    QUEUE,
    QUEUE_FRONT,
    QUEUE_REMOVAL,
    WorkerSettings,
    parse_settings,
)

_LIBRARY_SWITCHES = {
    # Progress bars and telemetry have no reader in a log file.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Requests run side by side already; threads inside one tokenizer call would fight over the same cores.
    "TOKENIZERS_PARALLELISM": "false",
    # Below that it logs what callers send and get.
    "RUNPOD_LOG_LEVEL": "INFO",
}


def main() -> None:
    """Serve until stopped, then end the process: 0 after a signal, 1 when the model cannot be served."""
    settings = parse_settings(sys.argv[1:], os.environ)
    for name, value in _LIBRARY_SWITCHES.items():
        os.environ.setdefault(name, value)
    configure_logging()
    end_process(_run(settings))


def _run(settings: WorkerSettings) -> int:
    if settings.face == JOBS:
        return serve_jobs(settings)
    if settings.face in (QUEUE, QUEUE_FRONT, QUEUE_REMOVAL):
        # Packages that only these faces have.
        from moorage_worker import queue_process

        lives = {
            QUEUE: queue_process.serve_queue,
            QUEUE_FRONT: queue_process.serve_front,
            QUEUE_REMOVAL: queue_process.serve_removal,
        }
        return asyncio.run(lives[settings.face](settings))
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
