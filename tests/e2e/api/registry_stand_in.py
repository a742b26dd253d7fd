"""A registry of images on loopback, for tests of what the service makes of a registry's answers. That the
adapter understands a real one is shown in `tests/contract/image_registry`."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from aiohttp import web

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class RegistryStandIn:
    """Holds `images`, digests by `repository:tag`. With `login` it opens to that `user:password` alone; with
    `broken` it answers 500."""

    url: str = ""
    images: dict[str, str] = field(default_factory=dict)
    login: str | None = None
    broken: bool = False

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/{repository:.+}/manifests/{reference}", self._manifest)
        return app

    async def _manifest(self, request: web.Request) -> web.Response:
        if self.broken:
            return web.Response(status=500)
        if self.login is not None and request.headers.get("Authorization") != _basic(self.login):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="stand-in"'})
        digest = self.images.get(f"{request.match_info['repository']}:{request.match_info['reference']}")
        if digest is None:
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        return web.Response(headers={"Content-Type": MANIFEST, "Docker-Content-Digest": digest})


def _basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"
