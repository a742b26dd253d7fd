"""How a cluster is reached: with what it accepts, where the guard allows, and told apart where it is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

import moorage_kubernetes
from moorage.domain.deployment import Handle
from moorage.errors import (
    Conflict,
    Gone,
    OutgoingRefused,
    PermissionMissing,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Retry,
    Unauthorized,
)
from moorage.ports.outside import Resolve
from moorage.ports.provider import Credentials, ProviderConfig
from moorage.testing.provider_contract import until_absent
from moorage_kubernetes.client import Clients
from moorage_kubernetes.cluster_provider import KubernetesProvider
from moorage_kubernetes.endpoints import utc_now
from moorage_kubernetes.failures import failure
from moorage_kubernetes.kubeconfig import read_access
from moorage_kubernetes.testing import StandInCluster

from . import plans
from .conftest import House
from .looking import serves, until


@asynccontextmanager
async def guarded(resolve: Resolve) -> AsyncIterator[KubernetesProvider]:
    config = plans.config(CALL_SECONDS="5")
    made = moorage_kubernetes.provider(
        ProviderConfig(config.data_dir, config.environ, installation=plans.INSTALLATION, resolve=resolve)
    )
    try:
        yield made
    finally:
        await made.aclose()


# -- credentials ------------------------------------------------------------------------------------------


async def test_a_client_certificate_opens_a_cluster(house: House, name: str) -> None:
    text = house.cluster.kubeconfig(client_certificate=True)
    credentials = Credentials(read_access({"kubeconfig": text}, utc_now()))
    provider = house.provider()
    assert (await provider.check_credentials(credentials)).id.startswith("kubernetes-")
    handle = await provider.create(plans.plan(), name, credentials)
    seen = await until(provider, handle, credentials, serves)
    assert (seen.access.bearer, seen.access.certificate, seen.access.key) == (
        None,
        "client_certificate",
        "client_key",
    )
    await until_absent(provider, handle, credentials, 10)


async def test_a_kubeconfig_opens_a_cluster(house: House) -> None:
    credentials = Credentials(house.provider().read_access({"kubeconfig": house.cluster.kubeconfig()}))
    account = await house.provider().check_credentials(credentials)
    assert account.id == (await house.provider().check_credentials(house.credentials)).id
    assert house.cluster.token not in str(account)


async def test_a_token_that_is_refused_is_unauthorized(house: House, name: str) -> None:
    credentials = Credentials({**house.cluster.values(), "token": "hush-of-yesterday"})
    for call in (
        house.provider().check_credentials(credentials),
        house.provider().observe(Handle("kubernetes", name), credentials),
        house.provider().create(plans.plan(), name, credentials),
    ):
        with pytest.raises(Unauthorized) as raised:
            await call
        assert "hush" not in str(raised.value)


async def test_without_credentials_there_is_nothing_to_ask(house: House) -> None:
    with pytest.raises(Unauthorized):
        await house.provider().check_credentials(None)


async def test_what_we_may_not_do_is_told_with_verb_and_resource(house: House, name: str) -> None:
    house.cluster.deny("patch", "deployments.apps")
    with pytest.raises(PermissionMissing, match=r"may not patch deployments\.apps"):
        await house.provider().create(plans.plan(), name, house.credentials)


async def test_an_account_that_may_create_nothing_is_told_at_the_import(house: House) -> None:
    house.cluster.deny("create", "deployments.apps")
    with pytest.raises(PermissionMissing):
        await house.provider().check_credentials(house.credentials)


async def test_an_account_of_one_namespace_is_enough(house: House, name: str) -> None:
    """Without a word on namespaces, storage classes, events or optional kinds."""
    house.cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plans.NAMESPACE}})
    for verb, resource in (
        ("*", "namespaces"),
        ("*", "storageclasses.storage.k8s.io"),
        ("*", "events"),
        ("*", "httproutes.*"),
        ("*", "backendtrafficpolicies.*"),
        ("*", "scaledobjects.*"),
        ("*", "triggerauthentications.*"),
        ("*", "horizontalpodautoscalers.*"),
    ):
        house.cluster.deny(verb, resource)
    provider = house.provider()
    handle = await provider.create(plans.plan(), name, house.credentials)
    await until(provider, handle, house.credentials, serves)
    await until_absent(provider, handle, house.credentials, 10)
    assert house.left() == {}


# -- the way there ----------------------------------------------------------------------------------------


async def test_the_guard_refuses_an_address_before_anything_is_sent(house: House, name: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OutgoingRefused("public_address", f"{host} is not a public address")

    before = len(house.cluster.requests)
    async with guarded(resolve) as provider:
        for call in (
            provider.check_credentials(house.credentials),
            provider.create(plans.plan(), name, house.credentials),
        ):
            with pytest.raises(Rejected, match="is not a public address") as raised:
                await call
            assert "MOORAGE_OUTBOUND_ALLOW" in str(raised.value.advice)
    assert len(house.cluster.requests) == before


async def test_a_name_goes_where_the_guard_says_and_nowhere_else(house: House) -> None:
    asked = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    port = house.cluster.url.rpartition(":")[2]
    values = {**house.cluster.values(), "server": f"https://cluster.example.com:{port}"}
    async with guarded(resolve) as provider:
        # The name led to the cluster, whose certificate is of another name.
        with pytest.raises(Rejected, match="not trusted"):
            await provider.check_credentials(Credentials(values))
    assert set(asked) == {"cluster.example.com"}


async def test_another_authority_is_not_believed(house: House) -> None:
    values = {**house.cluster.values(), "certificate_authority": StandInCluster().ca}
    with pytest.raises(Rejected, match="not trusted") as raised:
        await house.provider().check_credentials(Credentials(values))
    assert "certificate authority" in str(raised.value.advice)


async def test_a_certificate_that_has_expired_is_not_believed() -> None:
    async with StandInCluster(expired_certificate=True) as cluster:
        clients = Clients(None)
        client = clients.of(Credentials(cluster.values()))
        with pytest.raises(Rejected, match="expired"):
            await client.call(lambda: client.version.get_code())
        await clients.aclose()


async def test_what_speaks_no_kubernetes_is_passing_trouble_and_no_redirect_is_followed() -> None:
    """Over plain HTTP, which only a test can make: `read_access` refuses it."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        if request.path.endswith("moved"):
            raise web.HTTPFound("/secret")
        return web.Response(text="<html>hello</html>")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    clients = Clients(None)
    try:
        client = clients.of(Credentials({"server": f"http://127.0.0.1:{port}", "token": "t"}))
        for name in ("page", "moved"):
            with pytest.raises(Retry):
                await client.read(client.core.read_namespace, name=name)
    finally:
        await clients.aclose()
        await runner.cleanup()
    assert "/secret" not in seen


async def test_clients_are_shared_by_who_holds_the_same_values() -> None:
    clients = Clients(None)
    values = {"server": "https://a.example.com", "token": "hush"}
    first = clients.of(Credentials(values))
    assert clients.of(Credentials(dict(values))) is first
    assert clients.of(Credentials({**values, "token": "other"})) is not first
    assert "hush" not in repr(first)
    await clients.aclose()


# -- answers ----------------------------------------------------------------------------------------------


def status(message: str, **more: object) -> bytes:
    return json.dumps({"kind": "Status", "message": message, **more}).encode()


RBAC = 'pods is forbidden: User "a" cannot list resource "pods" in API group "" in the namespace "b"'


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (401, status("Unauthorized"), Unauthorized),
        (403, status(RBAC), PermissionMissing),
        (403, status('pods "a" is forbidden: exceeded quota: team'), QuotaExceeded),
        (403, status('admission webhook "a" denied the request'), Rejected),
        (403, status("unable to create new content in namespace a because it is being terminated"), Retry),
        (403, b"<html>", PermissionMissing),
        (404, status("not found"), Gone),
        (409, status("conflict"), Conflict),
        (410, status("too old"), Gone),
        (422, status("invalid"), Rejected),
        (422, b"<html>", Retry),
        (400, status("strict decoding error"), Rejected),
        (429, status("slow down"), Retry),
        (500, status("etcd"), Retry),
        (503, b"", Retry),
        (302, b"", Retry),
        (418, status("teapot"), ProviderError),
    ],
)
def test_each_answer_is_told_apart(code: int, body: bytes, kind: type[ProviderError]) -> None:
    assert type(failure(code, body, {})) is kind


def test_the_causes_are_told_by_field() -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "must be positive", "field": "spec.replicas"}]
    error = failure(422, status("invalid", details={"causes": causes}), {})
    assert isinstance(error, Rejected)
    assert [(e.field, e.rule, e.message) for e in error.fields] == [
        ("spec.replicas", "FieldValueInvalid", "must be positive")
    ]


@pytest.mark.parametrize(("asked", "after"), [("7", 7), ("0", 1), ("99999", 60), ("soon", 1), (None, 1)])
def test_the_server_says_how_long_to_wait_within_reason(asked: str | None, after: float) -> None:
    error = failure(429, status("slow"), {} if asked is None else {"retry-after": asked})
    assert isinstance(error, Retry)
    assert error.after == after
