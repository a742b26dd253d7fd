"""The owner's way into a service on the same machine, without being asked for anything.

A service that starts without `MOORAGE_BOOTSTRAP_USER` gets an owner of its own: name, password and an API key
lie in `access.json` in the data directory, readable by the user alone. The command line reads the key there,
and sends it to that very service and to nobody else.

Order matters: the password is on disk before the owner exists, so that a service killed in between finds its
way in at the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from moorage.cli.client import MoorageClient
from moorage.cli.failures import ApiProblem, ExitCode

FILE_NAME = "access.json"
USERNAME = "owner"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class LocalAccess:
    """`url` is where this machine reaches the service; `key` an API key of the role owner."""

    username: str
    password: str = field(repr=False)
    url: str | None = None
    key: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """None when there is none, or none that this user may read."""
        try:
            return cls(**json.loads((data_dir / FILE_NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def read_or_create(cls, data_dir: Path) -> Self:
        """Of two services that start at once, both get what the first one wrote."""
        found = cls.read(data_dir)
        if found is not None:
            return found
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            cls(USERNAME, secrets.token_urlsafe(32))._write_new(data_dir)
        found = cls.read(data_dir)
        if found is None:
            raise OSError(f"{data_dir / FILE_NAME} cannot be read; remove it to have a new one made")
        return found

    def _write_new(self, data_dir: Path) -> None:
        staged = self._stage(data_dir)
        try:
            os.link(staged, data_dir / FILE_NAME)  # unlike a rename, it never replaces
        finally:
            staged.unlink()

    def save(self, data_dir: Path) -> None:
        self._stage(data_dir).replace(data_dir / FILE_NAME)

    def _stage(self, data_dir: Path) -> Path:
        path = data_dir / f".{FILE_NAME}.{secrets.token_hex(8)}"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        return path

    def key_for(self, url: str) -> str | None:
        """The key, if `url` is this service on this machine."""
        if self.key is None or self.url is None or _origin(url) != _origin(self.url):
            return None
        return self.key if is_loopback(url) else None


def signed_in(access: LocalAccess, url: str) -> LocalAccess:
    """With a key that works at `url`: the one it has, or a new one got with the password.

    Raises ApiProblem when neither is accepted (the store has another owner)."""
    if access.key is not None:
        with MoorageClient(url, access.key) as client:
            try:
                client.keys()
                return replace(access, url=url)
            except ApiProblem as problem:
                if problem.exit_code is not ExitCode.AUTH:
                    raise
    with MoorageClient(url, None) as client:
        token = client.sign_in(access.username, access.password)["token"]
    with MoorageClient(url, token) as client:
        key: str = client.create_key("command line on the service's machine", "owner")["key"]
    return replace(access, url=url, key=key)


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in _LOOPBACK else parts.hostname
    return parts.scheme, host, parts.port
