"""RabbitMQ and Redis for real, on loopback, in folders and on ports of their own.

Debian's packages. Nothing of a system's own instances is touched: neither their data nor their ports, nor the
daemon by which Erlang's nodes find each other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

WAIT_SECONDS = 60.0
PASSWORD = "not-to-be-told-to-anybody"
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_TRIES = 5  # a port that was free may be another's when it is wanted


def missing() -> str | None:
    """The server that is not installed here, by its package's name."""
    if not RABBITMQ_SERVER.exists():
        return "rabbitmq-server"
    return None if shutil.which("redis-server") else "redis-server"


class Server:
    """A process that is ready when it says a certain word. Its log goes with it."""

    def __init__(
        self, command: Sequence[str | Path], env: Mapping[str, str], folder: Path, ready: str
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env={**env, "PATH": os.environ["PATH"], "HOME": str(folder)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._ready = ready
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._said = False
        self._over = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._said = self._said or self._ready in line
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def ready(self) -> bool:
        """Waits. False where it ended before."""
        with self._changed:
            self._changed.wait_for(lambda: self._said or self._over, WAIT_SECONDS)
            return self._said

    @property
    def log(self) -> str:
        return "".join(self._lines[-30:])

    def end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait(WAIT_SECONDS)


class Instance(ABC):
    """A server with data that outlive it. `restart` keeps the port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._server: Server | None = None

    def begin(self) -> None:
        for _ in range(_TRIES):
            self.port = free_port()
            server = self.server()
            if server.ready():
                self._server = server
                return
            server.end(signal.SIGKILL)
        raise AssertionError(server.log)

    @abstractmethod
    def server(self) -> Server:
        """A process on `port` that was just started, over the data in `folder`."""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._server is not None:
            self._server.end(number)
            self._server = None

    def resume(self) -> None:
        self._server = self.server()
        assert self._server.ready(), self._server.log


class Redis(Instance):
    """Hands every write to the kernel before it answers, so that a kill takes nothing."""

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def server(self) -> Server:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "requirepass": PASSWORD,
            "appendonly": "yes",
            "save": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return Server(["redis-server", *words], {}, self.folder, "Ready to accept connections")


class RabbitMQ(Instance):
    """One node, without plugins, that knows the user `moorage` beside its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._epmd_port = free_port()
        self._epmd = subprocess.Popen(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"])

    @property
    def url(self) -> str:
        return f"amqp://moorage:{PASSWORD}@127.0.0.1:{self.port}/"

    def server(self) -> Server:
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"default_user = moorage\ndefault_pass = {PASSWORD}\n"
            "log.console = true\nlog.file = false\n"
        )
        env = {
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            # Waiting threads must not spin: the tests share few cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
        }
        return Server([RABBITMQ_SERVER], env, self.folder, "Server startup complete")

    def close(self) -> None:
        self.stop()
        self._epmd.terminate()
        self._epmd.wait(WAIT_SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_serving() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        instance = Redis(Path(folder))
        try:
            instance.begin()
            yield instance
        finally:
            instance.stop()


@contextmanager
def rabbitmq_serving() -> Iterator[RabbitMQ]:
    with tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as folder:
        instance = RabbitMQ(Path(folder))
        try:
            instance.begin()
            yield instance
        finally:
            instance.close()
