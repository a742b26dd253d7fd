"""Who gets in, by what, and what they may do there."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
import yaml
from kubernetes_asyncio import client, config

from moorage_kubernetes.testing import StandInCluster

from .asking import Api, deployment, refused


async def connected(text: str) -> client.ApiClient:
    return await config.new_client_from_config_dict(yaml.safe_load(text))


async def test_a_token_or_a_certificate(cluster: StandInCluster) -> None:
    for kubeconfig in (cluster.kubeconfig(), cluster.kubeconfig(client_certificate=True)):
        async with await connected(kubeconfig) as one:
            assert (await client.CoreV1Api(one).list_node()).items
    assert {r.user for r in cluster.requests} == {"system:serviceaccount:moorage-system:moorage", "moorage"}


async def test_nobody_else(cluster: StandInCluster) -> None:
    wrong = cluster.kubeconfig().replace(cluster.token, "guessed")
    async with await connected(wrong) as one:
        status = await refused(client.CoreV1Api(one).list_node())
        assert (status["code"], status["reason"]) == (401, "Unauthorized")
        assert (await client.VersionApi(one).get_code()).major == "1"  # open to all


async def test_a_server_that_is_not_trusted() -> None:
    async with StandInCluster() as cluster, StandInCluster() as other, aiohttp.ClientSession() as session:
        trusted = ssl.create_default_context(cadata=other.ca)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{cluster.url}/version", ssl=trusted)


async def test_an_expired_server_certificate() -> None:
    async with StandInCluster(expired_certificate=True) as cluster, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="expired"):
            await session.get(f"{cluster.url}/version", ssl=ssl.create_default_context(cadata=cluster.ca))


async def test_an_expired_client_certificate(cluster: StandInCluster, tmp_path: Path) -> None:
    pair = cluster.client_pair(expired=True)
    context = ssl.create_default_context(cadata=cluster.ca)
    (tmp_path / "crt").write_text(pair.certificate)
    (tmp_path / "key").write_text(pair.key)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{cluster.url}/api/v1/nodes", ssl=context)


async def test_permissions_can_be_taken(cluster: StandInCluster, api: Api) -> None:
    cluster.deny("create", "secrets", "default")
    cluster.deny("*", "nodes")
    status = await refused(api.core.create_namespaced_secret("default", {"metadata": {"name": "s"}}))
    assert (status["code"], status["reason"]) == (403, "Forbidden")
    assert 'cannot create resource "secrets" in API group "" in the namespace "default"' in status["message"]
    assert "at the cluster scope" in (await refused(api.core.list_node()))["message"]
    cluster.deny("patch", "deployments.apps")
    assert (await refused(api.apply(deployment())))["code"] == 403
    cluster.allow_all()
    await api.apply(deployment())


async def test_access_reviews(cluster: StandInCluster, api: Api) -> None:
    cluster.deny("delete", "deployments.apps")

    async def may(verb: str) -> bool:
        asked = {"verb": verb, "group": "apps", "resource": "deployments", "namespace": "default"}
        body = {"spec": {"resourceAttributes": asked}}
        made = await api.authorization.create_self_subject_access_review(body)
        return bool(made.status.allowed)

    assert (await may("create"), await may("delete")) == (True, False)
