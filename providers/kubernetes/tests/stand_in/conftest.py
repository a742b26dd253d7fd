"""A cluster, and typed clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from kubernetes_asyncio import client

from moorage_kubernetes.testing import StandInCluster

from .asking import Api


@pytest.fixture
async def cluster() -> AsyncIterator[StandInCluster]:
    async with StandInCluster() as running:
        yield running


@pytest.fixture
async def api(cluster: StandInCluster) -> AsyncIterator[Api]:
    one: client.ApiClient = await cluster.api_client()
    async with one:
        yield Api(one)
