"""One queue with its workers and its front as processes, as a cluster runs them."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON of a model

import httpx
import orjson

from worker_harness.queue_servers import RabbitMQ, Redis
from worker_harness.running import StartWorker, WorkerProcess

WAIT_SECONDS = 30.0


@dataclass
class Queue:
    rabbitmq: RabbitMQ
    redis: Redis
    start: StartWorker
    name: str = field(default_factory=lambda: f"mrg-{secrets.token_hex(6)}")

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "MOORAGE_QUEUE_URL": self.rabbitmq.url,
            "MOORAGE_QUEUE_NAME": self.name,
            "MOORAGE_RESULTS_URL": self.redis.url,
            **more,
        }

    def worker(self, model: Path, *, consumers: int = 1, **more: str) -> WorkerProcess:
        """One that is on its way; `ready()` waits for it."""
        env = self.environment(MOORAGE_WORKER_FACE="queue", MOORAGE_QUEUE_CONSUMERS=str(consumers), **more)
        return self.start(model, env=env)

    def ready_worker(self, model: Path, *, consumers: int = 1, **more: str) -> WorkerProcess:
        """One that takes jobs."""
        worker = self.worker(model, consumers=consumers, **more)
        worker.wait_for_line("taking jobs from queue")
        return worker.listening()

    def front(self, **more: str) -> Front:
        env = self.environment(MOORAGE_WORKER_FACE="queue_front", **more)
        process = self.start("", env=env)
        process.wait_for_line("is open")
        return Front(process.listening())


class Front:
    """The job API, asked over HTTP."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.url = process.url
        self._client = httpx.Client(base_url=self.url, timeout=WAIT_SECONDS)

    def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        content = None if body is None else orjson.dumps(body)
        return self._client.request(method, path, content=content)

    def send(self, path: str, content: bytes) -> httpx.Response:
        return self._client.post(path, content=content)

    def json(self, method: str, path: str, body: object = None) -> Any:
        """The answer of a call that must succeed."""
        response = self.ask(method, path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def run(self, asked: object, **more: object) -> str:
        ticket = self.json("POST", "/run", {"input": asked, **more})
        assert set(ticket) == {"id", "status"}
        return str(ticket["id"])

    def status(self, job: str) -> Any:
        return self.json("GET", f"/status/{job}")

    def begun(self, job: str, worker: WorkerProcess) -> None:
        """Waits until this worker has the job. Nobody else waits for that, so there is no signal for it."""
        end = time.monotonic() + WAIT_SECONDS
        while not str(self.status(job).get("workerId")).endswith(f":{worker.process.pid}"):
            assert time.monotonic() < end, worker.lines
            time.sleep(0.02)

    def over(self, job: str) -> Any:
        """The document of a job that ends while the test waits for it."""
        document = self.json("GET", f"/status/{job}?wait={int(WAIT_SECONDS * 1000)}")
        assert document["status"] not in ("IN_QUEUE", "IN_PROGRESS"), document
        return document
