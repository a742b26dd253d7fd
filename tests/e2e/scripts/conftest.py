"""Scripts are run as processes, as their users run them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self  # JSON of the API

import httpx
import pytest

from tests.e2e.conftest import CLI, ROOT, Installation, started
from tests.e2e.runpod.conftest import write_pipeline

SCRIPTS = ROOT / "scripts"
PAINTER = "acme/tiny-painter"
INSTALLATION = "inst-scripts"


def own_environ() -> dict[str, str]:
    """Without the settings of whoever runs the tests."""
    foreign = ("MOORAGE_", "HF_", "RUNPOD_", "COV_", "COLUMNS")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


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
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / self.name), *arguments],
            env={**own_environ(), **self.environ, **environ},
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
        for secret in filter(None, (*self.environ.values(), *environ.values())):
            assert secret not in out + err, "a key was told"
        return Ended(process.returncode, out, err)


@dataclass(frozen=True)
class RunPodProcess:
    """A fake RunPod with an account that only this test uses. `before` requests came of earlier tests."""

    api_url: str
    key: str
    before: int
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
        told = self.ask("GET", "/_fake/requests")["requests"][self.before :]
        return [r for r in told if r["method"] == method]

    def until_asked(self, method: str) -> None:
        ends = time.monotonic() + 20
        while not self.requests(method):
            assert time.monotonic() < ends, f"no {method} came"
            time.sleep(0.05)


class Service:
    """`moorage serve` as a process that a test may kill."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, log.read_text()
        self.url: str = json.loads(line)["url"]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        finally:
            self.kill()
            assert self._process.stdout is not None
            self._process.stdout.close()


@dataclass(frozen=True)
class Harbour:
    """A service whose only users have RunPod keys."""

    url: str
    runpod: RunPodProcess
    service: Service


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a fake RunPod. Whatever the tests send it is held to RunPod's OpenAPI document."""
    command = [sys.executable, "-m", "moorage_runpod.testing"]
    with started(command, own_environ(), tmp_path_factory.mktemp("runpod") / "log") as told:
        yield told["api_url"]
        state = httpx.get(told["control_url"] + "/state", trust_env=False).json()
        assert (state["invalid_requests"], state["broken_answers"]) == ([], [])


@pytest.fixture
def runpod(cloud: str) -> Iterator[RunPodProcess]:
    key = f"rpa_{secrets.token_hex(20)}"
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=20) as http:
        before = len(http.get(f"{cloud}/_fake/requests").json()["requests"])
        found = RunPodProcess(cloud, key, before, http)
        found.ask("POST", "/_fake/accounts", {"name": f"account of {key}", "key": key})
        yield found
        found.ask("DELETE", "/_fake/faults")


@pytest.fixture
def harbour(tmp_path: Path, runpod: RunPodProcess) -> Iterator[Harbour]:
    """`moorage serve` on the fake RunPod, with a Hub that has a diffusers pipeline."""
    pipeline = write_pipeline(tmp_path / "painter")
    environ = own_environ() | {
        "MOORAGE_DATA_DIR": str(tmp_path / "var"),
        "MOORAGE_INSTALLATION": INSTALLATION,
        "MOORAGE_LOADING_LOOK_SECONDS": "0.1",
        "MOORAGE_READY_LOOK_SECONDS": "0.3",
        "MOORAGE_RUNPOD_API_URL": runpod.api_url,
        "MOORAGE_RUNPOD_LIST_LAG_SECONDS": "0.2",
        "NO_PROXY": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }
    hub = [sys.executable, "-m", "moorage.testing.hub", "--repo", f"{PAINTER}={pipeline}"]
    with started(hub, environ, tmp_path / "hub.log") as told:
        environ["MOORAGE_HUB_URL"] = told["url"]
        service = Service([*CLI, "serve", "--port", "0", "--json"], environ, tmp_path / "service.log")
        with service:
            yield Harbour(service.url, runpod, service)


@pytest.fixture(scope="module")
def access(installation: Installation) -> dict[str, str]:
    """What a script needs of the service, as a deployer, which may do no more than it has to."""
    made = installation.json("keys", "create", "scripts", "--role", "deployer")
    return {"MOORAGE_KEY": made["key"]}
