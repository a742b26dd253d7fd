"""One look at an endpoint: asks what `judging` needs to know, and no more, for every call counts against the
account's rate limit.

An endpoint that has proved itself costs one call of REST v2; how many of its workers run is told by the job
API, which has limits of its own. Before the proof the workers are listed too, and the warm-up job is sent and
looked after.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from moorage.domain.observation import Observation
from moorage.errors import Gone
from moorage_runpod import answers
from moorage_runpod.api import AccountApi
from moorage_runpod.environment import WORKER_MODEL
from moorage_runpod.judging import PROVED, Sight, judge, proof, suspects
from moorage_runpod.log_reading import last_lines
from moorage_runpod.settings import RunPodSettings
from moorage_runpod.urls import base_url
from moorage_runpod.wire import Endpoint, Health, Job, Worker

LOG_TAIL = 60
LOG_LOOKS_KEPT = 2000

WARM_UP, SINCE = "warm_up", "since"  # in a handle's `ref`, while the endpoint is not proved


@dataclass(frozen=True, slots=True)
class Asked:
    """What the next steps of a look need."""

    api: AccountApi
    endpoint: Endpoint
    now: datetime  # RunPod's


class Looker:
    def __init__(self, settings: RunPodSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._log_looks: OrderedDict[str, float] = OrderedDict()

    async def look(self, api: AccountApi, id_: str, ref: Mapping[str, str]) -> Observation:
        """`ref` is the handle's; without one, RunPod's own counts of jobs are enough. Raises Gone."""
        endpoint, now = await api.endpoint(id_)
        asked = Asked(api, endpoint, now)
        proved = ref.get("proved") == PROVED["proved"]
        sight = Sight(endpoint, base_url(endpoint, api.base), WORKER_MODEL in endpoint.env, proved)
        if proved:
            sight = await self._of_serving(asked, sight)
        elif endpoint.balanced:
            sight = await self._of_balanced(asked, sight, ref)
        else:
            sight = await self._of_queue(asked, sight, ref)
        if not proof(sight):
            sight = replace(sight, log=await self._log(asked, sight))
        return judge(sight, self._settings.capacity_seconds)

    async def _of_serving(self, asked: Asked, sight: Sight) -> Sight:
        if asked.endpoint.balanced or asked.endpoint.workers.min > 0:
            return replace(sight, workers=await asked.api.workers(asked.endpoint.id))
        return replace(sight, health=await asked.api.health(asked.endpoint))

    async def _of_balanced(self, asked: Asked, sight: Sight, ref: Mapping[str, str]) -> Sight:
        """The ping is a request like any other: it also wakes a worker."""
        workers, ping = await asyncio.gather(
            asked.api.workers(asked.endpoint.id), asked.api.ping(asked.endpoint)
        )
        since = _since(ref, asked.endpoint.created_at)
        return replace(
            sight,
            workers=workers,
            ping=ping,
            waited=(asked.now - since).total_seconds(),
            ref={SINCE: since.isoformat()},
        )

    async def _of_queue(self, asked: Asked, sight: Sight, ref: Mapping[str, str]) -> Sight:
        workers, health, job = await asyncio.gather(
            asked.api.workers(asked.endpoint.id),
            asked.api.health(asked.endpoint),
            self._job(asked, ref.get(WARM_UP)),
        )
        since = _since(ref, asked.endpoint.created_at)
        sight = replace(sight, workers=workers, health=health, warm_up=job)
        if not proof(sight) and answers.lost(job) and not _any_job(health):
            job = await asked.api.run(asked.endpoint, answers.WARM_UP)
            # Before this job nobody had to appear.
            since = _since(ref, asked.now)
        told = {SINCE: since.isoformat()}
        if job is not None and not answers.lost(job):
            told[WARM_UP] = job.id
        return replace(sight, warm_up=job, waited=(asked.now - since).total_seconds(), ref=told)

    async def _job(self, asked: Asked, id_: str | None) -> Job | None:
        if id_ is None:
            return None
        try:
            return await asked.api.job(asked.endpoint, id_)
        except Gone:
            return None

    async def _log(self, asked: Asked, sight: Sight) -> tuple[str, ...]:
        """Of one worker, and not at every look: each reading is a call."""
        workers = suspects(sight.workers or ())
        failed = sight.warm_up is not None and sight.warm_up.status == "FAILED"
        if not workers or not (failed or self._log_is_due(asked.endpoint.id, workers[0])):
            return ()
        lines = await last_lines(asked.api, asked.endpoint.id, workers[0].id, LOG_TAIL)
        return tuple(line.line.line for line in lines)

    def _log_is_due(self, id_: str, worker: Worker) -> bool:
        now = self._monotonic()
        last = self._log_looks.get(id_)
        unhealthy = worker.status == "UNHEALTHY"
        if last is not None and now - last < self._settings.log_seconds and not unhealthy:
            return False
        self._log_looks[id_] = now
        self._log_looks.move_to_end(id_)
        if len(self._log_looks) > LOG_LOOKS_KEPT:
            self._log_looks.popitem(last=False)
        return True


def _any_job(health: Health) -> bool:
    """Whether a job of anybody's is under way: it proves the endpoint as well as one of ours."""
    jobs = health.jobs
    return jobs.completed + jobs.in_queue + jobs.in_progress > 0


def _since(ref: Mapping[str, str], otherwise: datetime) -> datetime:
    try:
        since = datetime.fromisoformat(ref.get(SINCE, ""))
    except ValueError:
        return otherwise
    return since if since.tzinfo is not None else otherwise
