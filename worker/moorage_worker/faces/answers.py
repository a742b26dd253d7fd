"""From a request to its answer, the same on every face: what comes over HTTP and as a job is one thing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

from moorage_worker.engines.base import QUIET, Run
from moorage_worker.errors import BadInput, Cancelled, EngineFailed, RequestError, cause_line
from moorage_worker.faces.json_body import encode, object_field, refuse_unknown
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.json_types import Json
from moorage_worker.readiness import LoadedModel

FIELDS = ("inputs", "parameters")


def answer(
    loaded: LoadedModel, model_id: str, body: Mapping[str, Json], media: MediaResults, run: Run = QUIET
) -> bytes:
    """`{"model_id", "outputs", "metadata"}` as JSON for `{"inputs", "parameters"}`. Blocks.

    Raises a RequestError. `result` among the parameters says how files leave, and is not the model's.
    """
    refuse_unknown(body, FIELDS)
    if "inputs" not in body:
        raise BadInput("inputs", "required", "is missing")
    parameters = dict(object_field(body, "parameters"))
    send = media.sender(parameters.pop("result", None), uuid.uuid4().hex)
    _stop_if_unwanted(run)
    started = time.perf_counter()
    try:
        outputs = loaded.engine.infer(body["inputs"], parameters, run)
    except RequestError:
        raise
    except Exception as error:  # whatever the runtime raises is its failure, told without a traceback
        raise EngineFailed(cause_line(error)) from error
    milliseconds = round((time.perf_counter() - started) * 1000, 3)
    _stop_if_unwanted(run)
    metadata = {"inference_time_ms": milliseconds, "model_version": loaded.version}
    return encode({"model_id": model_id, "outputs": send(outputs), "metadata": metadata})


def _stop_if_unwanted(run: Run) -> None:
    """The caller may go while the request waits for its turn, or while an engine runs that cannot stop."""
    if run.cancelled:
        raise Cancelled
