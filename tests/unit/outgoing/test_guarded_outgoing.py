"""The guard over real sockets: pinning, TLS by name, no redirects, bounded bodies and time."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moorage.adapters.outgoing import BODY_LIMIT, GuardedOutgoing
from moorage.adapters.outgoing_rules import Address, AllowList
from moorage.errors import OutgoingFailed, OutgoingRefused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A real server on a free loopback port, which is yielded."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def answers(*rounds: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[Address]]]:
    """A name server that gives one answer after the other, and then the last one for good."""
    left = list(rounds)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        now = left.pop(0) if len(left) > 1 else left[0]
        return [ipaddress.ip_address(text) for text in now]

    return resolve


async def ok(request: web.Request) -> web.StreamResponse:
    return web.json_response({"host": request.headers["Host"], "body": (await request.read()).decode()})


async def test_post_reaches_the_pinned_address_under_the_given_name() -> None:
    async with serving(ok) as port:
        outgoing = GuardedOutgoing(AllowList.parse("hooks.example"), resolve=answers(["127.0.0.1"]))
        answer = await outgoing.post(f"http://hooks.example:{port}/x", {"webhook-id": "1"}, b"hi", 5)
        await outgoing.aclose()
    assert answer.status == 200
    assert answer.body == f'{{"host": "hooks.example:{port}", "body": "hi"}}'.encode()
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_every_method_goes_through_the_same_guard(method: str) -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.headers["Accept"], await request.read()))
        return web.Response(text="hello", headers={"X-Told": "yes"})

    async with serving(note) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
        answer = await outgoing.request(method, f"http://127.0.0.1:{port}/", {"accept": "text/plain"}, b"", 5)
        assert answer.body == (b"" if method == "HEAD" else b"hello")
        assert answer.headers["x-told"] == "yes"
        closed = GuardedOutgoing()
        with pytest.raises(OutgoingRefused):
            await closed.request(method, f"http://127.0.0.1:{port}/", {}, b"", 5)
    assert seen == [(method, "text/plain", b"")]


async def test_rebinding_between_check_and_post_is_refused() -> None:
    reached: list[str] = []

    async def inside(request: web.Request) -> web.StreamResponse:
        reached.append(request.path)
        return web.Response()

    async with serving(inside):
        outgoing = GuardedOutgoing(resolve=answers(["8.8.8.8"], ["127.0.0.1"]))
        await outgoing.check("https://rebind.example/")
        with pytest.raises(OutgoingRefused) as refused:
            await outgoing.post("https://rebind.example/", {}, b"", 5)
    assert refused.value.rule == "public_address"
    assert reached == []


async def test_each_post_looks_the_name_up_exactly_once() -> None:
    """A second lookup by the HTTP library would be the hole: it would get the second, unjudged answer."""
    async with serving(ok) as port:
        outgoing = GuardedOutgoing(
            AllowList.parse("127.0.0.1"), resolve=answers(["127.0.0.1"], ["10.255.255.1"])
        )
        answer = await outgoing.post(f"http://rebind.example:{port}/", {}, b"", 5)
        assert answer.status == 200
        with pytest.raises(OutgoingRefused):
            await outgoing.post(f"http://rebind.example:{port}/", {}, b"", 5)


async def test_redirect_is_an_answer_and_not_followed() -> None:
    paths: list[str] = []

    async def moved(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async with serving(moved) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
        answer = await outgoing.post(f"http://127.0.0.1:{port}/hook", {}, b"", 5)
    assert answer.status == 307
    assert paths == ["/hook"]


async def test_cookies_of_one_receiver_are_not_carried_to_the_next_request() -> None:
    cookies: list[str | None] = []

    async def bake(request: web.Request) -> web.StreamResponse:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with serving(bake) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
        for _ in range(2):
            await outgoing.post(f"http://127.0.0.1:{port}/", {}, b"", 5)
    assert cookies == [None, None]


async def test_endless_body_is_cut() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 8192)

    async with serving(endless) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
        answer = await outgoing.post(f"http://127.0.0.1:{port}/", {}, b"", 10)
    assert len(answer.body) == BODY_LIMIT


async def test_compressed_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def explode(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(explode) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
        answer = await outgoing.post(f"http://127.0.0.1:{port}/", {}, b"", 10)
    assert answer.body == bomb[:BODY_LIMIT]


async def test_receiver_that_drips_is_bounded_in_total() -> None:
    """Each read is quick, so that only a limit on the whole helps."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.05)

    loop = asyncio.get_running_loop()
    async with serving(drip) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
        began = loop.time()
        with pytest.raises(OutgoingFailed, match=r"within 0\.4 seconds"):
            await outgoing.post(f"http://127.0.0.1:{port}/", {}, b"", 0.4)
        assert loop.time() - began < 2


async def test_slow_lookup_is_bounded() -> None:
    async def never(host: str, port: int) -> Sequence[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    outgoing = GuardedOutgoing(resolve=never)
    with pytest.raises((OutgoingRefused, OutgoingFailed)):
        await outgoing.post("https://slow.example/", {}, b"", 0.1)


async def test_name_that_does_not_resolve() -> None:
    async def gone(host: str, port: int) -> Sequence[Address]:
        raise OSError("no such name; asked 10.0.0.53")

    with pytest.raises(OutgoingRefused) as refused:
        await GuardedOutgoing(resolve=gone).check("https://missing.example/")
    assert refused.value.rule == "resolves"
    assert "10.0.0.53" not in str(refused.value)


async def test_system_resolver_sees_through_other_spellings_of_loopback() -> None:
    outgoing = GuardedOutgoing()
    for host in ("127.1", "2130706433", "0x7f000001", "localhost"):
        with pytest.raises(OutgoingRefused) as refused:
            await outgoing.check(f"https://{host}/")
        assert refused.value.rule == "public_address"
    await outgoing.aclose()


async def test_next_address_is_tried_when_one_does_not_connect(unused_tcp_port: int) -> None:
    async with serving(ok) as port:
        outgoing = GuardedOutgoing(
            AllowList.parse("hooks.example"), resolve=answers(["127.0.0.2", "127.0.0.1"])
        )
        answer = await outgoing.post(f"http://hooks.example:{port}/", {}, b"", 5)
        assert answer.status == 200
    outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
    with pytest.raises(OutgoingFailed, match="could not be connected to"):
        await outgoing.post(f"http://127.0.0.1:{unused_tcp_port}/", {}, b"", 5)


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(ok) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
        assert (await outgoing.post(f"http://127.0.0.1:{port}/", {}, b"", 5)).status == 200


# -- TLS ---------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority of the test's own, and certificates for names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = (
            self._draft(self._name, self._key.public_key())
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_signing_usage(), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _draft(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    def server(self, name: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._draft(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(
            cadata=self._certificate.public_bytes(serialization.Encoding.PEM).decode()
        )


def _signing_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


async def test_certificate_is_checked_against_the_name_and_not_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(ok, authority.server("right.example")) as port:
        outgoing = GuardedOutgoing(
            AllowList.parse("127.0.0.1"), resolve=answers(["127.0.0.1"]), tls=authority.client()
        )
        answer = await outgoing.post(f"https://right.example:{port}/", {}, b"", 5)
        assert answer.status == 200
        # The same server, the same address, a moment later, under a name that its certificate is not for.
        with pytest.raises(OutgoingFailed, match=r"(?i)certificate"):
            await outgoing.post(f"https://wrong.example:{port}/", {}, b"", 5)


async def test_unknown_authority_is_refused(tmp_path: Path) -> None:
    async with serving(ok, Authority(tmp_path).server("right.example")) as port:
        outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"), resolve=answers(["127.0.0.1"]))
        with pytest.raises(OutgoingFailed, match=r"(?i)certificate"):
            await outgoing.post(f"https://right.example:{port}/", {}, b"", 5)


# -- for providers that connect by themselves -----------------------------------------------------------


async def test_resolve_gives_judged_addresses_on_any_port() -> None:
    guard = GuardedOutgoing(resolve=answers(["8.8.8.8", "2606:4700::1111"]))
    assert await guard.resolve("K8s.example.", 6443) == ["8.8.8.8", "2606:4700::1111"]
    assert await guard.resolve("8.8.4.4", 6443) == ["8.8.4.4"]
    await guard.aclose()


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:10.0.0.1"], ["fd00::1"]],
)
async def test_resolve_refuses_what_is_not_public(addresses: list[str]) -> None:
    guard = GuardedOutgoing(resolve=answers(addresses))
    with pytest.raises(OutgoingRefused) as refused:
        await guard.resolve("k8s.example", 6443)
    assert refused.value.rule == "public_address"
    assert not any(address in refused.value.detail for address in addresses)
    with pytest.raises(OutgoingRefused):
        await guard.resolve(addresses[-1], 6443)
    await guard.aclose()


async def test_resolve_gives_what_the_operator_allows() -> None:
    guard = GuardedOutgoing(
        AllowList.parse("10.0.0.0/8:6443 inside.example"), resolve=answers(["10.1.2.3"], ["192.168.1.1"])
    )
    assert await guard.resolve("k8s.example", 6443) == ["10.1.2.3"]
    assert await guard.resolve("inside.example", 6443) == ["192.168.1.1"]
    with pytest.raises(OutgoingRefused):
        await guard.resolve("10.1.2.3", 22)
    await guard.aclose()


async def test_resolve_of_a_name_that_nobody_knows_is_an_os_error() -> None:
    async def gone(host: str, port: int) -> Sequence[Address]:
        raise OSError(-2, "Name or service not known")

    async def none(host: str, port: int) -> Sequence[Address]:
        return []

    for look_up in (gone, none):
        guard = GuardedOutgoing(resolve=look_up)
        with pytest.raises(OSError):  # noqa: PT011  # which one is the name server's matter
            await guard.resolve("missing.example", 6443)
        await guard.aclose()
    guard = GuardedOutgoing()
    with pytest.raises(OSError, match="no name of a host"):
        await guard.resolve("x" * 64 + ".example", 6443)
    await guard.aclose()
