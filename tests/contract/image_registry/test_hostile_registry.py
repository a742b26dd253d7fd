"""Registries that fail, lie, or send us elsewhere: what cannot be known is said to be unknown, and what we
hold goes to nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from moorage.adapters.image_registry import HttpImageRegistry
from moorage.adapters.outgoing import GuardedOutgoing
from moorage.adapters.outgoing_rules import AllowList
from moorage.domain.image_reference import ImageReference
from moorage.errors import ImageMissing, OutgoingFailed, RegistryRefused, RegistrySilent
from moorage.ports.outside import ImageFound, OutgoingAnswer, RegistryAccess

from .conftest import MANIFEST, PASSWORD, USER, basic, digest, listening

BODY = b'{"schemaVersion": 2}'
DIGEST = digest(BODY)
FOUND = {"content-type": MANIFEST, "docker-content-digest": DIGEST}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Scripted:
    """A registry that does what `manifest` and `token` say, and keeps what it was asked."""

    host: str = ""
    manifest: Handler | None = None
    token: Handler | None = None
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    @property
    def image(self) -> ImageReference:
        return ImageReference.parse(f"{self.host}/acme/app:1")

    @property
    def access(self) -> RegistryAccess:
        return RegistryAccess(self.host, USER, PASSWORD)

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]

    def bearer(self, realm: str | None = None) -> web.Response:
        realm = f"http://{self.host}/token" if realm is None else realm
        challenge = f'Bearer realm="{realm}",service="s",scope="repository:acme/app:pull,push"'
        return web.Response(status=401, headers={"www-authenticate": challenge})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path, dict(request.headers)))
        handler = self.token if request.path == "/token" else self.manifest
        assert handler is not None
        return await handler(request)


def always(status: int, body: bytes = b"", **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    registry = Scripted()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", registry.answer)
    async with listening(app) as url:
        registry.host = url.removeprefix("http://")
        yield registry


@pytest.mark.parametrize(
    ("answer", "methods", "told"),
    [
        (
            always(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'),
            ["HEAD"],
            "takes no more questions for now (429",
        ),
        (always(500), ["HEAD"], "answered 500"),
        (always(503, b"<html>"), ["HEAD"], "answered 503"),
        (always(307, location="/elsewhere"), ["HEAD"], "sends elsewhere (307), which is not followed"),
        (always(200, b"<html>", content_type="text/html"), ["HEAD", "GET"], "no manifest of an image"),
        (always(200, b"{}", content_type="application/json"), ["HEAD", "GET"], "no manifest of an image"),
        (always(418, b"[[[[" * 9000), ["HEAD", "GET"], "answered 418"),
        (always(400, b'{"errors":[{"code":"<script>"}]}'), ["HEAD", "GET"], "answered 400"),
        (always(400, b'{"errors":{}}'), ["HEAD", "GET"], "answered 400"),
    ],
)
async def test_no_answer_of_a_registry_s_says_nothing_of_the_image(
    scripted: Scripted, asking: HttpImageRegistry, answer: Handler, methods: list[str], told: str
) -> None:
    scripted.manifest = answer
    with pytest.raises(RegistrySilent) as silent:
        await asking.look(scripted.image, None)
    assert told in silent.value.detail
    assert "script" not in silent.value.detail
    assert scripted.methods == methods


@pytest.mark.parametrize("status", [400, 404])
async def test_a_name_that_the_registry_cannot_have_is_missing(
    scripted: Scripted, asking: HttpImageRegistry, status: int
) -> None:
    scripted.manifest = always(status, b'{"errors":[{"code":"NAME_UNKNOWN","message":"ignored"}]}')
    with pytest.raises(ImageMissing, match=rf"has no repository acme/app \({status} NAME_UNKNOWN\)"):
        await asking.look(scripted.image, None)


async def test_a_registry_that_knows_no_head_is_asked_with_get(
    scripted: Scripted, asking: HttpImageRegistry
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=405)
        return web.Response(body=BODY, content_type=MANIFEST)

    scripted.manifest = answer
    assert await asking.look(scripted.image, None) == ImageFound(DIGEST), "computed from the body"


async def test_a_manifest_that_is_not_the_one_of_the_digest_is_not_believed(
    scripted: Scripted, asking: HttpImageRegistry
) -> None:
    scripted.manifest = always(200, BODY, **FOUND)
    wanted = ImageReference.parse(f"{scripted.host}/acme/app@sha256:{'1' * 64}")
    with pytest.raises(RegistrySilent):
        await asking.look(wanted, None)


async def test_a_manifest_too_long_to_be_read_whole_gets_no_digest_of_its_beginning(
    scripted: Scripted, asking: HttpImageRegistry
) -> None:
    scripted.manifest = always(200, b" " * 200_000, content_type=MANIFEST)
    with pytest.raises(RegistrySilent, match="digest"):
        await asking.look(scripted.image, None)


async def test_a_slow_registry_holds_nobody_up(scripted: Scripted) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    scripted.manifest = answer
    outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
    with pytest.raises(RegistrySilent, match=r"did not answer within 0\.2 seconds"):
        await HttpImageRegistry(outgoing, seconds=0.2, ask_seconds=5).look(scripted.image, None)
    await outgoing.aclose()


async def test_a_connection_that_breaks_is_no_answer(asking: HttpImageRegistry, unused_tcp_port: int) -> None:
    with pytest.raises(RegistrySilent, match="does not answer"):
        await asking.look(ImageReference.parse(f"127.0.0.1:{unused_tcp_port}/acme/app"), None)


# -- credentials -----------------------------------------------------------------------------------------


async def test_the_token_is_fetched_with_the_password_and_the_image_asked_with_the_token(
    scripted: Scripted, asking: HttpImageRegistry
) -> None:
    async def manifest(request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != "Bearer abc.def":
            return scripted.bearer()
        return web.Response(headers=FOUND)

    async def token(request: web.Request) -> web.StreamResponse:
        assert dict(request.query) == {"service": "s", "scope": "repository:acme/app:pull,push"}
        return web.json_response({"access_token": "abc.def", "expires_in": 60})

    scripted.manifest, scripted.token = manifest, token
    assert await asking.look(scripted.image, scripted.access) == ImageFound(DIGEST)
    sent = [headers.get("authorization", headers.get("Authorization")) for _, _, headers in scripted.asked]
    assert sent == [None, basic(USER, PASSWORD), "Bearer abc.def"]


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (always(200, b"not JSON"), "answered no token"),
        (always(200, b"[]"), "answered no token"),
        (always(200, b"[" * 30_000), "answered no token"),
        (always(200, b'{"token": "a\\r\\nx-evil: 1"}'), "answered no token"),
        (always(200, b'{"token": ""}'), "answered no token"),
        (always(429), "answered 429"),
        (always(302, location="/elsewhere"), "answered 302"),
    ],
)
async def test_a_server_without_a_token_says_nothing_of_the_image(
    scripted: Scripted, asking: HttpImageRegistry, token: Handler, told: str
) -> None:
    async def manifest(_: web.Request) -> web.StreamResponse:
        return scripted.bearer()

    scripted.manifest, scripted.token = manifest, token
    with pytest.raises(RegistrySilent, match=told):
        await asking.look(scripted.image, scripted.access)
    assert scripted.methods == ["HEAD", "GET"]


async def test_a_token_that_is_refused_is_a_refusal(scripted: Scripted, asking: HttpImageRegistry) -> None:
    async def manifest(_: web.Request) -> web.StreamResponse:
        return scripted.bearer()

    scripted.manifest, scripted.token = manifest, always(200, b'{"token": "stale"}')
    with pytest.raises(RegistryRefused, match="refuses these credentials"):
        await asking.look(scripted.image, scripted.access)


@pytest.mark.parametrize(
    "realm",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/token",
        "http://localhost:1/token",
        "file:///etc/passwd",
        "/token",
        "",
        "https://user:pass@example.test/token",
        "http://[::1/",
        "https://example.test:22/token",
    ],
)
async def test_the_password_is_not_taken_to_where_the_guard_does_not_go(
    scripted: Scripted, realm: str
) -> None:
    async def manifest(_: web.Request) -> web.StreamResponse:
        return scripted.bearer(realm)

    scripted.manifest = manifest
    outgoing = GuardedOutgoing(AllowList.parse(scripted.host))
    with pytest.raises(RegistrySilent) as silent:
        await HttpImageRegistry(outgoing).look(scripted.image, scripted.access)
    assert PASSWORD not in silent.value.detail
    assert scripted.methods == ["HEAD"]
    await outgoing.aclose()


@pytest.mark.parametrize(
    "challenge", ["", "Negotiate", "Basic", "realm=", 'Bearer realm="', "Digest realm=x"]
)
async def test_without_a_way_to_say_who_asks_it_is_refused(
    scripted: Scripted, asking: HttpImageRegistry, challenge: str
) -> None:
    scripted.manifest = always(401, www_authenticate=challenge)
    with pytest.raises((RegistryRefused, RegistrySilent)) as stopped:
        await asking.look(scripted.image, None)
    assert "127.0.0.1" in stopped.value.detail
    assert scripted.methods == ["HEAD"]


async def test_a_registry_on_the_internal_network_is_not_asked(scripted: Scripted) -> None:
    scripted.manifest = always(200, BODY, **FOUND)
    outgoing = GuardedOutgoing()
    with pytest.raises(RegistrySilent, match="may not be asked by this service"):
        await HttpImageRegistry(outgoing).look(scripted.image, scripted.access)
    assert scripted.asked == []
    await outgoing.aclose()


# -- defaults ---------------------------------------------------------------------------------------------


class Recording:
    """An `Outgoing` that keeps where it was sent, and knows no host."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    async def check(self, url: str) -> None: ...

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> OutgoingAnswer:
        self.urls.append(url)
        if "/v2/" in url:
            challenge = 'Bearer realm="https://auth.docker.io/token?a=b",service="registry.docker.io"'
            return OutgoingAnswer(401, {"www-authenticate": challenge}, b"")
        raise OutgoingFailed("no answer")

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> OutgoingAnswer:
        raise AssertionError(url)


@pytest.mark.parametrize(
    ("image", "first"),
    [
        ("python:3.12", "https://registry-1.docker.io/v2/library/python/manifests/3.12"),
        ("docker.io/acme/app", "https://registry-1.docker.io/v2/acme/app/manifests/latest"),
        ("ghcr.io/acme/app:1", "https://ghcr.io/v2/acme/app/manifests/1"),
    ],
)
async def test_docker_s_own_registry_is_asked_where_it_is(image: str, first: str) -> None:
    outgoing = Recording()
    with pytest.raises(RegistrySilent, match="The token server of"):
        await HttpImageRegistry(outgoing).look(ImageReference.parse(image), None)
    assert outgoing.urls[0] == first
    repository = ImageReference.parse(image).repository.replace("/", "%2F")
    scope = f"scope=repository%3A{repository}%3Apull"
    assert outgoing.urls[1:] == [f"https://auth.docker.io/token?a=b&service=registry.docker.io&{scope}"]
    assert json.dumps(outgoing.urls).count("http://") == 0, "plain HTTP is for this machine"
