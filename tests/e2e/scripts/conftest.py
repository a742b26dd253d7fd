"""Scripts are run as processes, as their users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest

from tests.e2e.conftest import ROOT, Installation, started

SCRIPTS = ROOT / "scripts"
PAINTER = "acme/tiny-painter"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Script:
    """One script, with nothing of the service's environment unless it is given."""

    name: str
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    def begin(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        foreign = ("MOORAGE_", "HF_", "RUNPOD_", "COV_", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / self.name), *arguments],
            env={**kept, **self.environ, **environ},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, **environ: str) -> Ended:
        with self.begin(*arguments, **environ) as process:
            out, err = process.communicate(timeout=90)
        assert "Traceback" not in err, err
        for secret in (*self.environ.values(), *environ.values()):
            assert secret not in out + err, "a key was told"
        return Ended(process.returncode, out, err)


@dataclass(frozen=True)
class RunPodProcess:
    """A fake RunPod of its own; `key` is of its only account."""

    api_url: str
    key: str
    http: httpx.Client

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, f"{self.api_url}{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def faults(self, **told: Any) -> None:
        self.ask("POST", "/_fake/faults", told)

    def made(self, name: str, **env: str) -> str:
        body = {
            "name": name,
            "type": "QUEUE",
            "image": "acme/worker:1",
            "gpu": {"pools": ["AMPERE_24"], "count": 1},
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "env": env,
        }
        id_: str = self.ask("POST", "/v2/serverless", body)["id"]
        return id_

    def names(self) -> set[str]:
        return {e["name"] for e in self.ask("GET", "/v2/serverless")["endpoints"]}

    def requests(self, method: str) -> list[dict[str, Any]]:
        return [r for r in self.ask("GET", "/_fake/requests")["requests"] if r["method"] == method]

    def until_asked(self, method: str) -> None:
        ends = time.monotonic() + 20
        while not self.requests(method):
            assert time.monotonic() < ends, f"no {method} came"
            time.sleep(0.05)


@pytest.fixture
def runpod(tmp_path: Path) -> Iterator[RunPodProcess]:
    """Whatever a test sent it is held to RunPod's OpenAPI document."""
    foreign = ("MOORAGE_", "HF_", "RUNPOD_", "COV_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    command = [sys.executable, "-m", "moorage_runpod.testing"]
    with started(command, environ, tmp_path / "runpod.log") as told:
        headers = {"authorization": f"Bearer {told['key']}"}
        with httpx.Client(headers=headers, trust_env=False, timeout=20) as http:
            yield RunPodProcess(told["api_url"], told["key"], http)
            state = http.get(told["control_url"] + "/state").json()
            assert (state["invalid_requests"], state["broken_answers"]) == ([], [])


@pytest.fixture(scope="module")
def access(installation: Installation) -> dict[str, str]:
    """What a script needs of the service, as a deployer, which may do no more than it has to."""
    made = installation.json("keys", "create", "scripts", "--role", "deployer")
    return {"MOORAGE_KEY": made["key"]}


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
