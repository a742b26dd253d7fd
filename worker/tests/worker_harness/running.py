"""Runs the worker as its users do: a process, its log, its port."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
WAIT_SECONDS = 30.0
_LISTENING = re.compile(r"listening on (http://\S+),")


class WorkerProcess:
    """One worker, on a port of its own choice unless its environment says which. Waiting is on its log."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str]) -> None:
        port = [] if "PORT" in env else ["--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moorage_worker", *port, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **env},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""
        self._client = httpx.Client(timeout=WAIT_SECONDS, verify=False)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for_line(self, text: str) -> str:
        """The first log line that holds `text`; fails when the process ends without it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._line(text) is not None or not self._reader.is_alive() or self._ended(),
                WAIT_SECONDS,
            )
            line = self._line(text)
        assert line is not None, f"no line with {text!r} in {self.lines}"
        return line

    def _line(self, text: str) -> str | None:
        return next((line for line in self.lines if text in line), None)

    def _ended(self) -> bool:
        return self.process.poll() is not None and self._line("listening") is None

    def listening(self) -> WorkerProcess:
        found = _LISTENING.search(self.wait_for_line("listening on"))
        assert found is not None
        self.url = found[1]
        return self

    def ready(self) -> WorkerProcess:
        self.listening()
        self.wait_for_line("ready in")
        return self

    def exit_code(self) -> int:
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code

    def nothing_left(self) -> bool:
        """Whether no process that it started outlived it: the log ends with the last that can write to it."""
        return self.process.poll() is not None and not self._reader.is_alive()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it has started, too
        self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        self._client.close()

    def get(self, path: str) -> httpx.Response:
        return self._client.get(self.url + path)

    def post(self, path: str, body: object) -> httpx.Response:
        return self._client.post(self.url + path, json=body)

    def infer(self, inputs: object, **parameters: object) -> Any:  # whatever the task answers
        """The outputs of a request that must succeed."""
        response = self.post("/infer", {"inputs": inputs, "parameters": parameters})
        assert response.status_code == 200, response.text
        return response.json()["outputs"]

    def refused(self, inputs: object, **parameters: object) -> dict[str, str]:
        """The one error of a request that must be refused as bad input."""
        response = self.post("/infer", {"inputs": inputs, "parameters": parameters})
        assert response.status_code == 422, response.text
        assert response.headers["content-type"] == "application/problem+json"
        [error] = response.json()["errors"]
        return dict(error)


StartWorker = Callable[..., WorkerProcess]  # (model, *options, env=None), as the fixture has it
