"""What every face needs to answer: which model, whether it is ready, and where inferences run."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from moorage_worker.faces.media_results import MediaResults
from moorage_worker.pool import InferencePool
from moorage_worker.readiness import Readiness


@dataclass(frozen=True, slots=True)
class ServingContext:
    """`model_id` is the name callers use, `model` where it came from."""

    model_id: str
    model: str
    readiness: Readiness
    pool: InferencePool
    media: MediaResults


CONTEXT = web.AppKey("context", ServingContext)
