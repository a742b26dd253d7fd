"""Workers' logs as RunPod streams them: the last lines of one worker, and those of an endpoint as they come.

RunPod keeps a stream open for ever and does not say where the past ends, so the past is what comes before a
short silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

from moorage.errors import Gone, ProviderError
from moorage.ports.provider import LogLine
from moorage_runpod.api import AccountApi, Logged
from moorage_runpod.wire import Worker

FIRST_LINE_SECONDS = 2.0
SILENCE_SECONDS = 0.3
MOST_LINES = 5000  # RunPod's own bound
# RunPod tells nobody of new workers: a follower looks for them, and for the endpoint's end.
LOOK_SECONDS = 2.0


async def last_lines(api: AccountApi, endpoint: str, worker: str, tail: int) -> list[Logged]:
    """Oldest first. A log that cannot be read now is empty: a fresh worker's is refused for a while."""
    found: list[Logged] = []
    if tail == 0:
        return found
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(FIRST_LINE_SECONDS) as clock, AsyncExitStack() as stack:
            lines = await stack.enter_async_context(
                api.worker_log(endpoint, worker, tail=min(tail, MOST_LINES))
            )
            async for line in lines:
                found.append(line)
                if len(found) >= tail:
                    break
                clock.reschedule(loop.time() + SILENCE_SECONDS)
    except (TimeoutError, ProviderError):
        pass
    return found


async def read_logs(
    api: AccountApi, endpoint: str, *, tail: int, follow: bool, ended: asyncio.Event
) -> AsyncGenerator[LogLine, None]:
    """Raises Gone. A follower ends with the endpoint; `ended` is set when this process removed it."""
    workers = await api.workers(endpoint)
    past = await asyncio.gather(*(last_lines(api, endpoint, w.id, tail) for w in workers))
    merged = sorted(
        ((w.id, line) for w, lines in zip(workers, past, strict=True) for line in lines),
        key=lambda pair: pair[1].line.ts,
    )
    for worker, line in merged[max(0, len(merged) - tail) :]:
        yield _log_line(worker, line)
    if follow:
        told = {w.id: lines[-1].event for w, lines in zip(workers, past, strict=True) if lines}
        skipped = frozenset(w.id for w in workers) if tail == 0 else frozenset()
        async for worker, line in _Following(api, endpoint, told, skipped, ended).lines():
            yield _log_line(worker, line)


class _Following:
    """One open stream a worker, for as long as the endpoint is there."""

    def __init__(
        self,
        api: AccountApi,
        endpoint: str,
        told: Mapping[str, str | None],
        skipped: frozenset[str],
        ended: asyncio.Event,
    ) -> None:
        """`told` is the last event of each worker that was told; of those `skipped` no past is wanted."""
        self._api = api
        self._endpoint = endpoint
        self._told = dict(told)
        self._skipped = skipped
        self._ended = ended
        self._queue: asyncio.Queue[tuple[str, Logged] | None] = asyncio.Queue(1000)
        self._streams: dict[str, asyncio.Task[None]] = {}

    async def lines(self) -> AsyncIterator[tuple[str, Logged]]:
        watching = asyncio.create_task(self._watch())
        try:
            while (told := await self._queue.get()) is not None:
                yield told
        finally:
            for task in (watching, *self._streams.values()):
                task.cancel()
            await asyncio.gather(watching, *self._streams.values(), return_exceptions=True)

    async def _watch(self) -> None:
        """Keeps a stream open for each worker that is there; ends the queue when the endpoint is gone."""
        while not self._ended.is_set():
            try:
                workers = await self._api.workers(self._endpoint)
            except Gone:
                break
            except ProviderError:
                workers = ()  # no answer says nothing; the streams that are open go on
            self._open(workers)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                continue
        await self._queue.put(None)

    def _open(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            stream = self._streams.get(worker.id)
            if stream is None or stream.done():
                self._streams[worker.id] = asyncio.create_task(self._stream(worker.id))

    async def _stream(self, worker: str) -> None:
        place = self._told.get(worker)
        # A worker that is new is told from its beginning.
        tail = 0 if place is not None or worker in self._skipped else MOST_LINES
        try:
            async with self._api.worker_log(self._endpoint, worker, tail=tail, after=place) as lines:
                async for line in lines:
                    if line.event is not None:
                        self._told[worker] = line.event
                    await self._queue.put((worker, line))
        except ProviderError:
            return  # opened again at the next look, if the worker is still there


def _log_line(worker: str, logged: Logged) -> LogLine:
    return LogLine(logged.line.ts, worker, logged.line.line)
