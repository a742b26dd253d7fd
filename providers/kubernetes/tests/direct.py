"""The typed APIs of a cluster with nothing around them, for tests of what reads a cluster.

The provider's own client keeps, guards and shares connections; what is read does not depend on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar  # Any: the client's APIs are not typed

import aiohttp
import yaml
from kubernetes_asyncio import client, config

from moorage.errors import Gone, PermissionMissing, ProviderError, Retry, Unauthorized
from moorage_kubernetes.testing.credentials import kubeconfig

T = TypeVar("T")
_MEANING: dict[int, type[ProviderError]] = {401: Unauthorized, 403: PermissionMissing, 404: Gone}


class Direct:
    namespace = "moorage"

    def __init__(self, api: Any) -> None:
        self.api = api
        self.core = client.CoreV1Api(api)
        self.storage = client.StorageV1Api(api)
        self.custom = client.CustomObjectsApi(api)
        self.version = client.VersionApi(api)
        self.authorization = client.AuthorizationV1Api(api)

    async def call(self, request: Callable[[], Awaitable[T]], /) -> T:
        try:
            return await request()
        except client.ApiException as error:
            raise _MEANING.get(error.status, Retry)(f"the cluster answered {error.status}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(f"the cluster cannot be reached: {error}") from error


@asynccontextmanager
async def reached(values: Mapping[str, str]) -> AsyncIterator[Direct]:
    text = kubeconfig(values["server"], values["certificate_authority"], token=values["token"])
    async with await config.new_client_from_config_dict(yaml.safe_load(text)) as api:
        yield Direct(api)
