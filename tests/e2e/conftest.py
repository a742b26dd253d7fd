"""The whole: `moorage serve` as a process of its own, the Hub stand-in beside it, real workers below."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from moorage.cli.app import app

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
CLI = (sys.executable, "-m", "moorage.cli")


@dataclass(frozen=True)
class Installation:
    """A service that runs, and the environment in which the command line finds it."""

    url: str
    data_dir: Path
    environ: Mapping[str, str]

    def begin(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*CLI, *arguments],
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def moorage(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        with self.begin(*arguments, **environ) as process:
            out, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def at_once(self, *arguments: str, **environ: str) -> Result:
        """In this process, which spares the interpreter's start."""
        foreign = {name: None for name in os.environ if name.startswith(("MOORAGE_", "HF_"))}
        ended = CliRunner().invoke(app, arguments, env={**foreign, **self.environ, **environ})
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        return ended

    def json(self, *arguments: str) -> Any:
        ended = self.at_once(*arguments, "--json")
        assert ended.exit_code == 0, ended.stderr
        return json.loads(ended.stdout)

    def replicas(self) -> list[int]:
        """Processes of workers and their supervisors."""
        return processes_of(self.data_dir / "managed")


def processes_of(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def started(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Iterator[dict[str, Any]]:
    """A process, as long as the context lasts; yields the line of JSON that it begins with."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield json.loads(line)
    finally:
        process.terminate()
        try:
            process.wait(15)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Without the settings of whoever runs the tests."""
    foreign = ("MOORAGE_", "HF_", "COLUMNS", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    data_dir = tmp_path_factory.mktemp("service") / "var"
    return {**kept, "MOORAGE_DATA_DIR": str(data_dir), "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def hub_models() -> tuple[str, ...]:
    """Ids under which the stand-in serves the sample model."""
    return ("moorage/digits",)


@pytest.fixture(scope="module")
def installation(environ: dict[str, str], hub_models: tuple[str, ...]) -> Iterator[Installation]:
    data_dir = Path(environ["MOORAGE_DATA_DIR"])
    folder = data_dir.parent
    repos = [part for model in hub_models for part in ("--repo", f"{model}={DIGITS}")]
    hub_command = [sys.executable, "-m", "moorage.testing.hub", *repos]
    try:
        with started(hub_command, environ, folder / "hub.log") as hub:
            environ["MOORAGE_HUB_URL"] = hub["url"]
            command = [*CLI, "serve", "--port", "0", "--json"]
            with started(command, environ, folder / "service.log") as told:
                yield Installation(told["url"], data_dir, environ)
    finally:
        for pid in processes_of(data_dir):  # whatever a failed test has left
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
