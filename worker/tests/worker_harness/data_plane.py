"""RunPod's side of a worker of a queue endpoint, on loopback: hands out jobs, takes answers, stops jobs.

It speaks what the real `runpod` package asks for: `job-take` and `job-take-batch`, `job-stop`, `job-done`,
`ping`. Polls are held open as long as there is nothing to say, as RunPod holds them for a minute and more.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

WAIT_SECONDS = 30.0
ENDPOINT, WORKER = "endpoint1", "worker1"


@dataclass(slots=True)
class Seen:
    """What the worker has done. Answers are by job: `{"output": …}` or `{"error": …}`."""

    taken: list[str] = field(default_factory=list)
    progress: dict[str, list[Any]] = field(default_factory=dict)
    answers: dict[str, list[Any]] = field(default_factory=dict)
    pinged: list[set[str]] = field(default_factory=list)


class DataPlane:
    """`with DataPlane().serving() as plane:`; one worker at a time."""

    def __init__(self) -> None:
        self.key = f"rpa_{secrets.token_hex(12)}"
        self.seen = Seen()
        self._changed = threading.Condition()
        self._queue: list[dict[str, Any]] = []
        self._stops: list[str] = []
        self._closing = False
        self._base = ""

    @contextmanager
    def serving(self) -> Iterator[DataPlane]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"plane": self}))
        server.daemon_threads = True
        self._base = f"http://127.0.0.1:{server.server_port}/{ENDPOINT}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            server.shutdown()
            server.server_close()
            thread.join()

    def environment(self) -> dict[str, str]:
        """What RunPod and the provider set for a worker that takes jobs."""
        return {
            "MOORAGE_WORKER_FACE": "jobs",
            "RUNPOD_POD_ID": WORKER,
            "RUNPOD_ENDPOINT_ID": ENDPOINT,
            "RUNPOD_AI_API_KEY": self.key,
            "RUNPOD_WEBHOOK_GET_JOB": f"{self._base}/job-take/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self._base}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self._base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_PING": f"{self._base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            # There is no GPU here, and a check of network speed would leave this machine.
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    # -- what a test does ---------------------------------------------------------------------------

    def add(self, asked: object) -> str:
        """Queue a job; returns its id."""
        job = f"{secrets.token_hex(8)}-u1"
        with self._changed:
            self._queue.append({"id": job, "input": asked})
            self._changed.notify_all()
        return job

    def stop(self, job: str) -> None:
        """Cancel a job that was taken."""
        with self._changed:
            self._stops.append(job)
            self._changed.notify_all()

    def answer(self, job: str) -> Any:  # JSON
        """The one answer of a job, waited for."""
        self.until(lambda seen: job in seen.answers, f"an answer of job {job}")
        [answer] = self.seen.answers[job]
        return answer

    def output(self, job: str) -> Any:  # JSON
        answer = self.answer(job)
        assert set(answer) == {"output"}, answer
        return answer["output"]

    def problem(self, job: str) -> dict[str, Any]:
        """The problem document of a job that must fail."""
        answer = self.answer(job)
        assert set(answer) == {"error"}, answer
        return dict(json.loads(answer["error"]))

    def until(self, holds: Callable[[Seen], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self.seen), WAIT_SECONDS), f"no {what}: {self.seen}"

    # -- what the worker asks -----------------------------------------------------------------------

    def take(self, most: int) -> list[dict[str, Any]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            jobs, self._queue = self._queue[:most], self._queue[most:]
            self.seen.taken += [job["id"] for job in jobs]
            self._changed.notify_all()
        return jobs or None

    def take_stops(self) -> dict[str, list[str]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stops or self._closing)
            stops, self._stops = self._stops, []
        return {"jobsToStop": stops} if stops else None

    def take_result(self, job: str, body: dict[str, Any]) -> None:
        with self._changed:
            if body.get("status") == "IN_PROGRESS":
                self.seen.progress.setdefault(job, []).append(body["output"])
            else:
                self.seen.answers.setdefault(job, []).append(body)
            self._changed.notify_all()

    def take_ping(self, jobs: set[str]) -> None:
        with self._changed:
            self.seen.pinged.append(jobs)
            self._changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    plane: DataPlane
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        _, endpoint, action, worker = url.path.split("/")
        if not self._known(endpoint, worker):
            self._send(401)
        elif action == "job-take":
            jobs = self.plane.take(1)
            self._send(204) if jobs is None else self._send(200, jobs[0])
        elif action == "job-take-batch":
            jobs = self.plane.take(int(query["batch_size"][0]))
            self._send(204) if jobs is None else self._send(200, jobs)
        elif action == "job-stop":
            stops = self.plane.take_stops()
            self._send(204) if stops is None else self._send(200, stops)
        else:
            assert action == "ping", self.path
            self.plane.take_ping(set(query.get("job_id", [""])[0].split(",")) - {""})
            self._send(200)

    def do_POST(self) -> None:
        _, endpoint, action, worker, job = urlsplit(self.path).path.split("/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._known(endpoint, worker):
            self._send(401)
            return
        assert action == "job-done", self.path
        self.plane.take_result(job, body)
        self._send(200)

    def _known(self, endpoint: str, worker: str) -> bool:
        return (endpoint, worker, self.headers["Authorization"]) == (ENDPOINT, WORKER, self.plane.key)

    def _send(self, status: int, body: object = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        with contextlib.suppress(ConnectionError):  # a worker that ends lets go of its polls
            self.send_response(status)
            if body is not None:
                self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Quiet: what happens is in `DataPlane.seen`."""
