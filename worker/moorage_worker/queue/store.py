"""The records of jobs in Redis: one hash each, changed by scripts only, gone when they were kept long enough.

Every call is one round trip and raises `StoreAway` when Redis cannot take it now; each may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import (  # what Redis answers depends on the command, and the library's types know too little
    Any,
    cast,
)

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.typing import EncodableT

from moorage_worker.queue import scripts
from moorage_worker.queue.messages import JobMessage
from moorage_worker.queue.records import WORKER_SECONDS, JobRecord, Outcome, Status, WorkerWord
from moorage_worker.queue.settings import QueueSettings

WAITING_SECONDS = 7 * 86_400  # that a job is known which nobody has begun, or ended
CONNECTIONS = 16
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
_WORKERS_SECONDS = 3600
_KEYS_AT_ONCE = 1000


class StoreAway(Exception):
    """Redis cannot be reached, or takes nothing in. The message is the cause, without an address."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """`new`: nobody knew the id before. `sent`: the broker has its message."""

    new: bool
    status: Status
    digest: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """`exhausted`: so many runs have ended with their worker that this one must not be."""

    status: Status
    starts: int
    exhausted: bool = False


def connect(url: str) -> Redis:
    """A client for commands. It does not repeat a command by itself: whoever calls knows for how long to."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=ANSWER_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1),  # at once: the connection may have been idle for too long
    )
    return Redis.from_pool(pool)


class JobStore:
    """The records of one queue. Closed by closing its client."""

    def __init__(self, client: Redis, settings: QueueSettings) -> None:
        self._client = client
        self._settings = settings
        # In braces is what Redis Cluster places keys by: all of one queue are in one place.
        self._prefix = f"moorage:{{{settings.name}}}"
        self.ends = f"{self._prefix}:ends"
        self.cancellations = f"{self._prefix}:cancellations"
        self._accept = client.register_script(scripts.ACCEPT)
        self._sent = client.register_script(scripts.SENT)
        self._forget = client.register_script(scripts.FORGET)
        self._begin = client.register_script(scripts.BEGIN)
        self._progress = client.register_script(scripts.PROGRESS)
        self._finish = client.register_script(scripts.FINISH)
        self._give_back = client.register_script(scripts.GIVE_BACK)
        self._cancel = client.register_script(scripts.CANCEL)
        self._say = client.register_script(scripts.SAY)

    async def accept(self, job_id: str, digest: str) -> Accepted:
        """Note a job before its message is sent, unless it is known."""
        answer = await _answer(self._accept([self._job(job_id)], [digest, WAITING_SECONDS]))
        status, known, sent = (part.decode() for part in cast("Sequence[bytes]", answer))
        new = status == "NEW"
        return Accepted(new, Status.IN_QUEUE if new else Status(status), known, sent == "1")

    async def sent(self, job_id: str) -> None:
        await _answer(self._sent([self._job(job_id)]))

    async def forget(self, job_id: str) -> None:
        """Take back an `accept` whose message could not be sent."""
        await _answer(self._forget([self._job(job_id)]))

    async def begin(self, job: JobMessage, run: str, worker: str) -> Begun:
        """Begin a run with a name of its own."""
        keys = [self._job(job.id), self._totals]
        queued_at, attempts = round(job.queued_at * 1000), self._settings.attempts
        args: list[EncodableT] = [run, worker, attempts, queued_at, WAITING_SECONDS]
        status, starts = cast("tuple[bytes, int]", await _answer(self._begin(keys, args)))
        if status == b"EXHAUSTED":
            return Begun(Status.IN_PROGRESS, starts, exhausted=True)
        return Begun(Status(status.decode()), starts)

    async def starts(self, job_id: str) -> int:
        """How many runs were begun and not given back."""
        found = await _answer(_async(self._client.hget(self._job(job_id), "starts")))
        return int(cast("bytes | None", found) or 0)

    async def progress(self, job_id: str, run: str, word: bytes) -> None:
        await _answer(self._progress([self._job(job_id)], [run, word]))

    async def finish(self, job_id: str, outcome: Outcome, queued_at: int) -> bool:
        """Store the result with its status. False: the job was over already, and stays as it was."""
        kind, payload = ("output", outcome.output) if outcome.error is None else ("error", outcome.error)
        assert payload is not None
        args: list[EncodableT] = [
            outcome.status.value,
            kind,
            payload,
            queued_at,
            self._settings.result_seconds,
            self.ends,
            job_id,
        ]
        return await _answer(self._finish([self._job(job_id), self._totals], args)) == 1

    async def give_back(self, job_id: str, run: str) -> None:
        """The run is broken off, and does not count."""
        await _answer(self._give_back([self._job(job_id)], [run]))

    async def cancel(self, job_id: str) -> Status | None:
        """The status after it: a job that is over stays so. None where there is no such job."""
        args: list[EncodableT] = [self._settings.result_seconds, self.cancellations, self.ends, job_id]
        answer = cast("bytes", await _answer(self._cancel([self._job(job_id), self._totals], args)))
        return Status(answer.decode()) if answer else None

    async def find(self, job_id: str) -> JobRecord | None:
        found = await _answer(_async(self._client.hgetall(self._job(job_id))))
        fields = cast("dict[bytes, bytes]", found)
        return JobRecord.read(fields) if b"status" in fields else None

    async def say(self, worker: str, *, ready: bool, in_hand: int) -> None:
        """A worker's sign of life."""
        await _answer(self._say([self._workers], [worker, int(ready), in_hand, _WORKERS_SECONDS]))

    async def take_leave(self, worker: str) -> None:
        await _answer(_async(self._client.hdel(self._workers, worker)))

    async def counts(self) -> tuple[dict[str, int], dict[str, WorkerWord], int]:
        """Totals of jobs by status, the last word of each worker, and Redis' time in ms."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(self._totals)
        pipe.hgetall(self._workers)
        pipe.time()
        totals, words, (seconds, micros) = cast("Any", await _answer(pipe.execute()))
        now = seconds * 1000 + micros // 1000
        said = {name.decode(): WorkerWord.read(text) for name, text in words.items()}
        gone = [name for name, word in said.items() if now - word.at > 10 * WORKER_SECONDS * 1000]
        if gone:
            await _answer(_async(self._client.hdel(self._workers, *gone)))
        return {name.decode(): int(count) for name, count in totals.items()}, said, now

    async def remove(self) -> None:
        """All that is known of the queue and its jobs."""
        cursor = 0
        while True:
            answer = await _answer(
                _async(self._client.scan(cursor, match=f"{self._prefix}:*", count=_KEYS_AT_ONCE))
            )
            cursor, keys = cast("tuple[int, list[bytes]]", answer)
            if keys:
                await _answer(_async(self._client.unlink(*keys)))
            if cursor == 0:
                return

    async def ping(self) -> None:
        await _answer(_async(self._client.ping()))

    def _job(self, job_id: str) -> str:
        return f"{self._prefix}:job:{job_id}"

    @property
    def _totals(self) -> str:
        return f"{self._prefix}:totals"

    @property
    def _workers(self) -> str:
        return f"{self._prefix}:workers"


def _async(call: object) -> Awaitable[object]:
    """The library's commands are typed for its blocking client, too."""
    return cast("Awaitable[object]", call)


async def _answer(call: Awaitable[object]) -> object:
    try:
        return await call
    except ResponseError as error:  # full, read-only, not allowed: a person can mend it
        raise StoreAway(f"Redis refuses: {_short(error)}") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreAway(f"Redis cannot be reached: {_short(error)}") from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
