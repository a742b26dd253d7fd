"""Several processes of the service on one store, as they would run on several machines.

Each has a data directory and a name of its machine of its own; what they must share (keys, installation, the
store) they share. Processes are killable, see `moorage.testing.killing`.
"""

from __future__ import annotations

import base64
import random
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from moorage.testing.killing import KillableService

INSTALLATION = "replicas-test"


class Replicas:
    """Makes them; `close` ends their sockets, the processes are their starter's."""

    def __init__(self, folder: Path, database_url: str, **environ: str) -> None:
        """`environ` are settings of all, without their prefix and in lower case."""
        self.folder = folder
        self.made: list[KillableService] = []
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        self._environ = {
            "MOORAGE_DATABASE_URL": database_url,
            "MOORAGE_SECRET_KEYS": f"k1:{key}",
            "MOORAGE_INSTALLATION": INSTALLATION,
            **_named(environ),
        }

    def make(self, machine: str, data: Path | None = None, /, **environ: str) -> KillableService:
        """One that would run on that machine, not started. Its data are in the machine's folder or `data`."""
        own = {"MOORAGE_DATA_DIR": str(data or self.folder / machine), "MOORAGE_MACHINE": machine}
        service = KillableService(
            {**self._environ, **own, **_named(environ)}, self.folder / f"{len(self.made)}-{machine}.log"
        )
        self.made.append(service)
        return service

    def logs(self, size: int = 3000) -> str:
        """The ends of what they told, for a test that failed."""
        found = [s.log for s in self.made if s.log.exists()]
        return "\n".join(f"== {log.name}\n{log.read_text()[-size:]}" for log in found)

    def close(self) -> None:
        for service in self.made:
            service.close()


class AnyOf(httpx.AsyncBaseTransport):
    """Sends each request to one of the replicas, as a load balancer does that knows nothing of them."""

    def __init__(self, urls: Callable[[], Sequence[str]], rng: random.Random) -> None:
        self._urls = urls
        self._rng = rng
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        chosen = httpx.URL(self._rng.choice(self._urls()))
        request.url = request.url.copy_with(scheme=chosen.scheme, host=chosen.host, port=chosen.port)
        request.headers["host"] = chosen.netloc.decode()
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _named(environ: dict[str, str]) -> dict[str, str]:
    return {f"MOORAGE_{name.upper()}": value for name, value in environ.items()}
