"""Replicas behind an authority of their own: the token and the certificates that go with requests to them."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from moorage import upstream_auth
from moorage.adapters.job_api import HttpJobApi
from moorage.connections import Connections
from moorage.domain.job import Job, NotTaken, Output
from moorage.domain.observation import Access, Face
from moorage.errors import BadGateway, OutgoingRefused, Unauthorized, Unavailable
from moorage.gateway.job_replicas import JobReplicas
from moorage.gateway.routes import Route, RoutePublisher, RouteTable
from moorage.ports.provider import Credentials
from moorage.upstream_auth import NO_AUTH, UpstreamAuthenticator

BASE = "/api/v1/namespaces/ns/services/http:web:8000/proxy"
TOKEN = "cluster-token"
BEARER = Access(bearer="token", authority="certificate_authority")
CERTIFICATE = Access(authority="certificate_authority", certificate="client_certificate", key="client_key")


class Cluster:
    """An HTTPS server that believes only its own authority, and tells what it saw."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        mine = self.authority.issue_cert("moorage@here")
        self.values = {
            "token": TOKEN,
            "certificate_authority": self.authority.cert_pem.bytes().decode(),
            "client_certificate": mine.cert_chain_pems[0].bytes().decode(),
            "client_key": mine.private_key_pem.bytes().decode(),
        }
        self.seen: list[tuple[str, dict[str, str], bool]] = []
        self.port = 0
        self.opened: list[str] = []

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}{BASE}"

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        shown = bool(request.transport.get_extra_info("ssl_object").getpeercert())
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.path_qs, headers, shown))
        if "/runsync" in request.path or "/run" in request.path:
            return web.json_response({"id": "j", "status": "COMPLETED", "output": 7})
        return web.json_response({"body": (await request.read()).decode()})

    async def open(self, credential_id: str) -> Credentials:
        self.opened.append(credential_id)
        return Credentials(self.values)

    async def permit(self, host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]


async def forbid(host: str, port: int) -> Sequence[str]:
    raise OutgoingRefused("public_address", f"{host} leads to a private network")


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    found = Cluster()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    found.authority.issue_cert("127.0.0.1", "localhost", "cluster.test").configure_cert(context)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


def connect(house: Any, cluster: Cluster, access: Access, **changes: Any) -> UpstreamAuthenticator:
    """Publishes the cluster as the route's one target, and has the gateway open `crd_1` for it."""
    authenticator = UpstreamAuthenticator(cluster.open)

    async def auth(route: Route) -> Any:
        return await authenticator.auth(route.access, route.credential_id)

    house.gateway.out.auth = auth
    house.publish(changes.pop("url", cluster.url), access=access, credential_id="crd_1", **changes)
    return authenticator


async def test_our_token_goes_with_the_request_and_the_callers_does_not(house: Any, cluster: Cluster) -> None:
    connect(house, cluster, BEARER)
    async with house.infer(data=b"hello", params={"a": "1"}) as response:
        assert (response.status, await response.json()) == (200, {"body": "hello"})
    [(path, headers, shown)] = cluster.seen
    assert path == f"{BASE}/infer?a=1"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert not shown
    assert cluster.opened == ["crd_1"]


async def test_our_certificate_is_shown_and_its_key_leaves_no_file(
    house: Any, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    load = ssl.SSLContext.load_cert_chain

    def watched(context: ssl.SSLContext, path: str, **options: Any) -> None:
        assert Path(path).parent == tmp_path
        modes.append(Path(path).stat().st_mode & 0o777)
        load(context, path, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    connect(house, cluster, CERTIFICATE)
    async with house.infer(data=b"x") as response:
        assert response.status == 200
    [(_, headers, shown)] = cluster.seen
    assert shown
    assert "authorization" not in headers
    assert modes == [0o600]
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - an empty folder of the test


async def test_another_authority_is_not_believed(house: Any, cluster: Cluster, problem: Any) -> None:
    cluster.values["certificate_authority"] = cluster.stranger.cert_pem.bytes().decode()
    connect(house, cluster, BEARER)
    async with house.infer(data=b"x") as response:
        assert response.status == 502
        assert (await problem(response))["code"] == "upstream_untrusted"
    assert cluster.seen == []


async def test_the_name_on_the_certificate_counts(house: Any, cluster: Cluster) -> None:
    house.gateway.out.connections = Connections(2.0, cluster.permit)
    for host, status in (("cluster.test", 200), ("other.test", 502)):
        connect(house, cluster, BEARER, url=f"https://{host}:{cluster.port}{BASE}")
        async with house.infer(data=b"x") as response:
            assert response.status == status
    assert len(cluster.seen) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_guard_stands_before_hosts_that_users_named(
    house: Any, cluster: Cluster, problem: Any, host: str
) -> None:
    house.gateway.out.connections = Connections(2.0, forbid)
    connect(house, cluster, BEARER, url=f"https://{host}:{cluster.port}{BASE}")
    async with house.infer(data=b"x") as response:
        assert response.status == 503
        await problem(response)
    assert cluster.seen == []


async def test_the_guard_leaves_our_own_replicas_alone(house: Any, worker: Any) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    house.gateway.out.connections = Connections(2.0, forbid)
    house.publish(await worker(answer))
    async with house.infer(data=b"x") as response:
        assert response.status == 200


async def test_a_context_is_made_once_for_many_requests_at_once(
    house: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = upstream_auth.tls_context

    def counted(*pem: Any) -> ssl.SSLContext:
        made.append(pem)
        return make(*pem)

    monkeypatch.setattr(upstream_auth, "tls_context", counted)
    authenticator = connect(house, cluster, CERTIFICATE)

    async def call() -> int:
        async with house.infer(data=b"x") as response:
            return int(response.status)

    assert await asyncio.gather(*(call() for _ in range(20))) == [200] * 20
    again = await authenticator.auth(CERTIFICATE, "crd_2")  # the same certificates under another id
    assert len(made) == 1
    assert again.tls is (await authenticator.auth(CERTIFICATE, "crd_1")).tls


async def test_who_stops_waiting_for_a_context_takes_it_from_nobody(cluster: Cluster) -> None:
    authenticator = UpstreamAuthenticator(cluster.open)
    first = asyncio.create_task(authenticator.auth(BEARER, "crd_1"))
    second = asyncio.create_task(authenticator.auth(BEARER, "crd_1"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).tls is not None


def encrypted(pem: str) -> str:
    key = serialization.load_pem_private_key(pem.encode(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    ).decode()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda values: values.pop("client_key"), "provider_key_missing"),
        (lambda values: values.update(certificate_authority="SECRET no pem"), "provider_key_unusable"),
        (lambda values: values.update(client_certificate="SECRET no pem"), "provider_key_unusable"),
        (lambda values: values.update(client_key=values["other_key"]), "provider_key_unusable"),
        (lambda values: values.update(client_key=encrypted(values["client_key"])), "provider_key_unusable"),
    ],
)
async def test_a_spoilt_credential_is_told_without_its_values(
    cluster: Cluster, spoil: Any, code: str
) -> None:
    other = cluster.stranger.issue_cert("other").private_key_pem.bytes().decode()
    good = dict(cluster.values)
    cluster.values["other_key"] = other
    spoil(cluster.values)
    authenticator = UpstreamAuthenticator(cluster.open)
    with pytest.raises(BadGateway) as caught:
        await authenticator.auth(CERTIFICATE, "crd_1")
    assert caught.value.code == code
    assert "SECRET" not in str(caught.value.members())
    cluster.values = good  # what was wrong is not remembered
    assert (await authenticator.auth(CERTIFICATE, "crd_1")).tls is not None


async def test_a_credential_that_was_removed(cluster: Cluster) -> None:
    async def gone(credential_id: str) -> Credentials:
        raise Unauthorized(f"The credential {credential_id} was removed.")

    authenticator = UpstreamAuthenticator(gone)
    assert await authenticator.auth(Access(), None) is NO_AUTH
    with pytest.raises(BadGateway, match="removed"):
        await authenticator.auth(BEARER, "crd_1")


async def test_nothing_secret_is_printed(cluster: Cluster) -> None:
    auth = await UpstreamAuthenticator(cluster.open).auth(BEARER, "crd_1")
    assert auth.token == TOKEN
    assert TOKEN not in repr(auth)


# -- jobs -----------------------------------------------------------------------------------------------

JOB = Job("job-1-u1", "org", "dep", datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("access", [BEARER, CERTIFICATE])
@pytest.mark.parametrize("face", list(Face))
async def test_jobs_reach_such_replicas_too(cluster: Cluster, access: Access, face: Face) -> None:
    authenticator = UpstreamAuthenticator(cluster.open)
    own = Access(face, access.bearer, access.authority, access.certificate, access.key)
    route = Route("dep", "org", "name", targets=(cluster.url,), access=own, credential_id="crd_1")

    async def auth(route: Route) -> Any:
        return await authenticator.auth(route.access, route.credential_id)

    replicas = JobReplicas(RoutePublisher(RouteTable([route])), auth, cluster.permit)
    ending = await replicas.run(JOB, "1")
    await replicas.aclose()
    assert ending == Output("7" if face is Face.JOBS else '{"body": "1"}')
    [(path, headers, shown)] = cluster.seen
    assert path.startswith(f"{BASE}/runsync" if face is Face.JOBS else f"{BASE}/infer")
    assert shown is (access is CERTIFICATE)
    assert headers.get("authorization") == (f"Bearer {TOKEN}" if access is BEARER else None)
    guarded = JobReplicas(RoutePublisher(RouteTable([route])), auth, forbid)
    assert await guarded.run(JOB, "1") == NotTaken()
    await guarded.aclose()


async def test_a_job_api_behind_an_authority_of_its_own(cluster: Cluster) -> None:
    auth = await UpstreamAuthenticator(cluster.open).auth(BEARER, "crd_1")
    api = HttpJobApi(cluster.permit)
    answer = await api.call("POST", f"{cluster.url}/run", auth, b"{}", 5.0)
    await api.aclose()
    assert (answer.status, answer.body) == (200, b'{"id": "j", "status": "COMPLETED", "output": 7}')
    guarded = HttpJobApi(forbid)
    with pytest.raises(Unavailable):
        await guarded.call("POST", f"{cluster.url}/run", auth, b"{}", 5.0)
    await guarded.aclose()
    assert len(cluster.seen) == 1
