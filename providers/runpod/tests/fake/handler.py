"""A worker as a user of RunPod writes one: the `runpod` package with a handler. Run as a process by tests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import runpod

Json = dict[str, Any]  # Any: JSON of a job


async def answer(job: Json) -> Json:
    given = job["input"]
    if given.get("sleep"):
        await asyncio.sleep(given["sleep"])
    if given.get("fail"):
        raise ValueError("as it was asked to")
    if given.get("refuse"):
        return {"error": "a soft failure"}
    if given.get("exit"):
        os._exit(3)
    if given.get("environment"):
        return {"environment": dict(os.environ)}
    return {"echo": given, "pid": os.getpid()}


async def count(job: Json) -> AsyncIterator[Json]:
    for number in range(job["input"]["count"]):
        yield {"number": number}


if __name__ == "__main__":
    print("the handler starts", flush=True)
    if "broken" in sys.argv:
        raise SystemExit("CUDA out of memory")
    runpod.serverless.start(
        {
            "handler": count if "stream" in sys.argv else answer,
            "concurrency_modifier": lambda current: 2,
            "return_aggregate_stream": True,
        }
    )
