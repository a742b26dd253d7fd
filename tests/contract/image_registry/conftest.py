"""Debian's `docker-registry`, started on a free port, and images pushed into it by its own API."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON of the registry

import httpx
import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moorage.adapters.image_registry import HttpImageRegistry
from moorage.adapters.outgoing import GuardedOutgoing
from moorage.adapters.outgoing_rules import AllowList

BINARY = shutil.which("docker-registry")
USER, PASSWORD = "reader", "open sesame"
HTPASSWD = (
    f"{USER}:$2b$05$9KUjouBe3iZbTd5zxSXqZeSwzcQrRSGJBCXT7yw661XxRMeWyasc.\n"  # the bcrypt hash of PASSWORD
)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
SERVICE, ISSUER = "registry.test", "tokens.test"
Json = dict[str, Any]


@pytest.fixture
async def asking() -> AsyncIterator[HttpImageRegistry]:
    """Which may reach this machine, and asks as the service does."""
    outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
    yield HttpImageRegistry(outgoing)
    await outgoing.aclose()


@dataclass(frozen=True)
class Registry:
    """A registry that runs. `headers` opens it for whoever pushes."""

    host: str
    headers: Callable[[str], Mapping[str, str]]

    def push(self, repository: str, tag: str) -> str:
        """A tiny image of one layer; its digest."""
        layer, config = b"nothing much", b'{"architecture":"amd64","os":"linux"}'
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
        with self._client(repository) as http:
            for blob in (layer, config):
                begun = http.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
                url = httpx.URL(begun.headers["location"]).copy_add_param("digest", digest(blob))
                http.put(url, content=blob).raise_for_status()
        return self.put_manifest(repository, tag, MANIFEST, manifest)

    def put_manifest(self, repository: str, tag: str, media_type: str, manifest: Json) -> str:
        body = json.dumps(manifest).encode()
        with self._client(repository) as http:
            url = f"/v2/{repository}/manifests/{tag}"
            http.put(url, content=body, headers={"content-type": media_type}).raise_for_status()
        return digest(body)

    def _client(self, repository: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://{self.host}", headers=dict(self.headers(repository)), timeout=20
        )


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _descriptor(media_type: str, content: bytes) -> Json:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


@contextlib.contextmanager
def running(folder: Path, auth: Json | None = None) -> Iterator[str]:
    """The host and port of a registry with its own storage."""
    if BINARY is None:
        pytest.skip("docker-registry is not installed (Debian's package of that name)")
    config = folder / "config.yml"
    settings = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": "127.0.0.1:0"},
        **({} if auth is None else {"auth": auth}),
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    process = subprocess.Popen([BINARY, "serve", str(config)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        listening = next(line for line in process.stderr if "listening on" in line)
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        yield json.loads(listening)["msg"].removeprefix("listening on ")
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Open to everybody."""
    with running(tmp_path_factory.mktemp("registry")) as host:
        yield Registry(host, lambda _: {})


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """It wants USER and PASSWORD."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "htpasswd").write_text(HTPASSWD)
    with running(folder, {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}) as host:
        yield Registry(host, lambda _: {"authorization": basic(USER, PASSWORD)})


class TokenServer:
    """Gives out the signed tokens of Docker's token authentication: to pull from `public/` to everybody, from
    `private/` to USER with PASSWORD."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _self_signed(self._key)
        self.asked: list[Mapping[str, str]] = []
        self.url = ""

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def token(self, scope: str, actions: tuple[str, ...]) -> str:
        kind, _, rest = scope.partition(":")
        name = rest.rpartition(":")[0]
        now = datetime.datetime.now(datetime.UTC)
        claims = {
            "iss": ISSUER,
            "sub": "",
            "aud": SERVICE,
            "nbf": now - datetime.timedelta(minutes=1),
            "iat": now,
            "exp": now + datetime.timedelta(minutes=5),
            "jti": "1",
            "access": [{"type": kind, "name": name, "actions": list(actions)}] if actions else [],
        }
        chain = base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode()
        return jwt.encode(claims, self._key, "ES256", headers={"x5c": [chain]})

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        scope = request.query["scope"]
        header = request.headers.get("Authorization")
        known = header == basic(USER, PASSWORD)
        if header is not None and not known:
            return web.json_response({"details": "incorrect username or password"}, status=401)
        public = scope.startswith("repository:public/")
        return web.json_response({"token": self.token(scope, ("pull",) if known or public else ())})


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    server = TokenServer()
    app = web.Application()
    app.router.add_get("/token", server.answer)
    async with listening(app) as url:
        server.url = url
        yield server


@pytest.fixture
def token_registry(tokens: TokenServer, tmp_path: Path) -> Iterator[Registry]:
    """It sends whoever asks to `tokens`."""
    (tmp_path / "tokens.pem").write_bytes(tokens.pem)
    auth = {
        "token": {
            "realm": f"{tokens.url}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(tmp_path / "tokens.pem"),
        }
    }

    def headers(repository: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {tokens.token(f'repository:{repository}:x', ('pull', 'push'))}"}

    with running(tmp_path, auth) as host:
        yield Registry(host, headers)


@contextlib.asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
