"""Google's own Firestore emulator on loopback, for tests: a Java program that comes with the Cloud SDK.

What it does not check as Firestore does: indexes (`moorage.adapters.firestore.indexes` has the needed ones),
permissions, and the size of a batch. It keeps everything in memory.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

_JAR = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
_DOCUMENT = "/v1/projects/moorage-warm/databases/(default)/documents/any/one"
_READY = 60.0  # seconds, on a machine that is busy with other tests
_TRIES = 5  # of ports that somebody else may take meanwhile


def available() -> bool:
    """Whether this machine has the emulator and a Java to run it."""
    return _jar() is not None and shutil.which("java") is not None


MISSING = "the Firestore emulator is not installed (package google-cloud-cli-firestore-emulator, and Java)"


class FirestoreEmulator:
    """Runs from `start` to `stop`; as a context manager from the beginning to the end of the block. Started
    again it has the same address, and nothing of what it had."""

    def __init__(self) -> None:
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Its address, host:port."""
        assert self._port is not None, "start it first"
        return f"127.0.0.1:{self._port}"

    def new_database(self) -> str:
        """The URL of a database that nobody else has."""
        return f"firestore://moorage-{secrets.token_hex(6)}/(default)?emulator={self.host}"

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError when it does not."""
        ports = [self._port] * _TRIES if self._port is not None else [_free_port() for _ in range(_TRIES)]
        for port in ports:
            self._port = port
            self._process = _run(port)
            if _answers(self.host, self._process):
                return
            self.stop()
        raise RuntimeError("the Firestore emulator does not start")

    def stop(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Connections stay open, and nothing answers, until `thaw`."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@functools.cache
def shared_emulator() -> FirestoreEmulator:
    """One for all tests of a process, which is not to be stopped: a Java machine takes seconds to start."""
    emulator = FirestoreEmulator()
    emulator.start()
    atexit.register(emulator.stop)
    return emulator


def _jar() -> Path | None:
    gcloud = shutil.which("gcloud")
    roots = [
        *([Path(root)] if (root := os.environ.get("CLOUDSDK_ROOT")) else []),
        *([Path(gcloud).resolve().parent.parent] if gcloud else []),
        Path("/usr/lib/google-cloud-sdk"),
    ]
    return next((root / _JAR for root in roots if (root / _JAR).is_file()), None)


def _run(port: int) -> subprocess.Popen[bytes]:
    jar = _jar()
    if jar is None:
        raise RuntimeError(MISSING)
    main = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
    options = ("-Xmx512m", "-XX:+UseSerialGC", "-Duser.language=en", "-cp", str(jar), main)
    command = ("java", *options, "start", "--host=127.0.0.1", f"--port={port}")
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent)  # noqa: S603 - our own words


def _answers(host: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether it has looked for a document: that takes it seconds the first time, where others work too."""
    end = time.monotonic() + _READY
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://{host}{_DOCUMENT}", timeout=end - time.monotonic()).close()
        except urllib.error.HTTPError as answer:
            return answer.code == 404  # there is no such document
        except OSError:
            time.sleep(0.1)
    return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
