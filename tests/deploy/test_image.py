"""The image, as far as it can be had without an image engine: the Dockerfile's steps really carried out, and
its process started as the Dockerfile says.

What is not shown: the base image itself (this machine's Python and libraries stand in for it), layers, and
pulling and pushing. docs/deploying.md says so too.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .building import Image, build
from .room import first_process, why_not

ROOT = Path(__file__).parents[2]
HUB_PORT = "8090"  # in a network of its own, where nothing else is
HUB = ("python", "-m", "moorage.testing.hub", "--repo=moorage/digits=/digits", f"--port={HUB_PORT}")
# A pod has these, whether it wants them or not; a provider's own variables begin like them.
OF_A_POD = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
}
TOKEN = "a-token-of-the-scheduler"
READY = "from urllib.request import *; print(urlopen('http://127.0.0.1:9090/ready').read().decode())"
TICK = """
import sys
from urllib.request import Request, urlopen
bearer = {"Authorization": f"Bearer {sys.argv[1]}"}
print(urlopen(Request("http://127.0.0.1:9090/internal/tick", b"", bearer)).read().decode())
"""
# The header of a compiled module: 1 where its source is not looked at, 0 where its time must be the same.
COMPILED = """
import pathlib, sys, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
ours = [path for path in site.rglob("*.py") if path.parts[len(site.parts)].startswith("moorage")]
tag = sys.implementation.cache_tag
compiled = [path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc" for path in ours]
print(len(ours) > 100, {path.read_bytes()[4] for path in compiled} == {1})
"""
INSTALLED = """
import importlib, importlib.metadata as m
for name in ("google.cloud.firestore", "grpc", "opentelemetry.sdk.trace", "kubernetes_asyncio", "psycopg",
             "onnxruntime", "moorage_worker", "moorage.server"):
    importlib.import_module(name)
print(sorted(e.name for e in m.entry_points(group="moorage.providers")))
print(sorted(d.name for d in m.distributions() if d.name in {"pip", "pytest", "uv", "hatchling", "mypy"}))
"""


@dataclass(slots=True)
class Container:
    """One process of the image: no network but loopback, nothing to write to but its volume and /tmp."""

    image: Image
    process: subprocess.Popen[str]
    environ: dict[str, str]
    lines: queue.Queue[str] = field(default_factory=queue.Queue)
    printed: list[str] = field(default_factory=list)

    def until(self, words: str) -> str:
        """The first line that it prints with these words. Raises AssertionError where it ends before."""
        while True:
            line = self.lines.get(timeout=120)
            assert line, f"it ended before it printed {words!r}:\n{''.join(self.printed)}"
            if words in line:
                return line

    def start(self, *command: str) -> subprocess.Popen[str]:
        return self.image.room.join(self.process, command, self.environ, self.image.user)

    def run(self, *command: str) -> str:
        """Raises AssertionError with what it printed where it fails."""
        process = self.start(*command)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command}: {printed}\n{''.join(self.printed)}"
        return printed

    def stop(self) -> int:
        """By the signal that every platform sends; its exit status."""
        os.kill(first_process(self.process), signal.SIGTERM)
        return self.process.wait(timeout=60)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            self.lines.put(line)
        self.lines.put("")


@contextmanager
def container(image: Image, data: Path, **environ: str) -> Iterator[Container]:
    environ = {**image.environ, **OF_A_POD, "HF_ENDPOINT": f"http://127.0.0.1:{HUB_PORT}", **environ}
    process = image.room.start(
        image.command,
        environ,
        user=image.user,
        mounts={data: "/var/lib/moorage", ROOT / "examples" / "digits": "/digits"},
        read_only=True,
        network=False,
    )
    made = Container(image, process, environ)
    threading.Thread(target=made.read, daemon=True).start()
    try:
        yield made
    finally:
        image.room.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not under pytest's own, which other users may not enter."""
    path = Path(tempfile.mkdtemp(prefix="moorage-image-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.timeout(600)
@pytest.mark.skipif(why_not() is not None, reason=f"the image's own room {why_not()}")
def test_the_image_is_built_and_serves_as_nobody_on_a_file_system_that_it_cannot_write(folder: Path) -> None:
    image = build(ROOT, folder)
    providers, developers = image.room.run(["python", "-c", INSTALLED], image.environ).splitlines()
    assert providers == "['kubernetes', 'managed', 'runpod']"
    assert developers == "[]", "nothing that only builds or tests is in it"

    assert image.room.run(["python", "-c", COMPILED], image.environ).split() == ["True", "True"]

    volume = image.room.at("/var/lib/moorage")
    assert (volume.stat().st_uid, volume.stat().st_mode & 0o777) == (image.user, 0o700)
    data = folder / "volume"
    shutil.copytree(volume, data)
    shutil.chown(data, image.user, image.user)

    with container(image, data) as first:
        first.until("Moorage answers at")
        assert _health(first) == 0
        assert first.run("id", "--user").strip() == str(image.user)
        refused = first.start("touch", "/opt/moorage/new").communicate()[0]
        assert "Read-only file system" in refused
        hub = first.start(*HUB)
        assert hub.stdout is not None
        assert json.loads(hub.stdout.readline())["url"]
        first.run("moorage", "deploy", "moorage/digits", "--name", "digits")
        assert _what_it_sees(first) == "4"
        assert first.stop() == 0
        assert any("service.stopped" in line for line in first.printed)

    # The volume is the same, the container another: as on Cloud Run, with CPU only for requests.
    with container(image, data, PORT="9090", MOORAGE_TICK_ONLY="true", MOORAGE_TICK_TOKEN=TOKEN) as second:
        assert ":9090" in second.until("Moorage answers at")
        assert _health(second) == 0
        assert _health(second, MOORAGE_PORT="9091") != 0, "nobody listens there"
        assert json.loads(second.run("python", "-c", READY))["status"] == "ready"
        assert json.loads(second.run("python", "-c", TICK, TOKEN))["deployments"] == 1
        assert second.stop() == 0


def _health(of: Container, **other: str) -> int:
    check = of.image.room.join(of.process, of.image.healthcheck, {**of.environ, **other}, of.image.user)
    check.communicate(timeout=60)
    return check.returncode


def _what_it_sees(of: Container) -> str:
    answer = json.loads(of.run("moorage", "infer", "digits", "@/digits/samples/4.png", "--json"))
    return str(max(answer["outputs"], key=lambda output: output["score"])["label"])
