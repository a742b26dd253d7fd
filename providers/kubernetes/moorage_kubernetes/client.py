"""One client for each cluster: the library's typed APIs on our transport.

Whoever holds the same credential values shares the connections, so that a thousand deployments of a cluster
cost no more of them than one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar  # Any: the library is not typed

import aiohttp
from kubernetes_asyncio import client as k8s

from moorage.errors import MoorageError, Retry, Unauthorized
from moorage.ports.outside import Resolve
from moorage.ports.provider import Credentials
from moorage_kubernetes.settings import DEFAULT_NAMESPACE, own_version
from moorage_kubernetes.transport import MOST_BYTES, Transport, read_bounded, trouble

CALL_SECONDS = 20.0
CLIENTS_KEPT = 500

T = TypeVar("T")


class _Api(k8s.ApiClient):  # type: ignore[misc]  # the library is not typed
    def __init__(self, configuration: Any, transport: Transport) -> None:
        # Not the library's constructor, which opens a session of its own.
        self.configuration = configuration
        self.pool_threads = 1
        self.rest_client = transport
        self.default_headers = {"User-Agent": f"moorage-kubernetes/{own_version()}"}
        self.cookie = None
        self.client_side_validation = False


class ClusterClient:
    """`values` are the credential's. Everything that is asked goes through `call` or `read`."""

    def __init__(
        self,
        credentials: Credentials,
        resolve: Resolve | None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        seconds: float = CALL_SECONDS,
    ) -> None:
        self.values = credentials.values
        self.server = self.values["server"].rstrip("/")
        self.namespace = self.values.get("namespace") or namespace
        self.transport = Transport(self.values, resolve, seconds)
        self.api = _Api(_configuration(self.server, self.values.get("token")), self.transport)
        self.core = k8s.CoreV1Api(self.api)
        self.apps = k8s.AppsV1Api(self.api)
        self.autoscaling = k8s.AutoscalingV2Api(self.api)
        self.policy = k8s.PolicyV1Api(self.api)
        self.networking = k8s.NetworkingV1Api(self.api)
        self.storage = k8s.StorageV1Api(self.api)
        self.custom = k8s.CustomObjectsApi(self.api)
        self.version = k8s.VersionApi(self.api)
        self.authorization = k8s.AuthorizationV1Api(self.api)

    @property
    def closed(self) -> bool:
        return self.transport.closed

    def __repr__(self) -> str:
        return f"ClusterClient({self.server})"

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """What the API answers, as its model. Raises ProviderErrors."""
        try:
            return await request()
        except MoorageError:
            raise
        except (k8s.OpenApiException, ValueError, TypeError, AttributeError, KeyError) as error:
            # The models refuse what does not have the form of the API: something else has answered.
            message = f"The answer is not that of a Kubernetes API ({type(error).__name__})"
            raise Retry(message, after=5.0) from None

    async def read(self, method: Callable[..., Awaitable[Any]], /, **query: Any) -> Any:
        """The JSON that an API method answers with. The models are slow to build, and the list of all pods is
        long. Raises ProviderErrors."""
        response = await self.open(method, **query)

        async def body() -> Any:
            try:
                return json.loads(await read_bounded(response, MOST_BYTES))
            except (aiohttp.ClientError, OSError) as error:
                raise trouble(error) from None
            finally:
                response.release()

        return await self.call(body)

    async def open(self, method: Callable[..., Awaitable[Any]], /, **query: Any) -> aiohttp.ClientResponse:
        """A successful answer that the caller reads and releases, as of a watch or a log that is followed."""
        opened: aiohttp.ClientResponse = await self.call(partial(method, _preload_content=False, **query))
        return opened

    async def aclose(self) -> None:
        await self.transport.close()


class Clients:
    """`of` gives the client of a credential, `aclose` closes them all."""

    def __init__(
        self,
        resolve: Resolve | None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        seconds: float = CALL_SECONDS,
    ) -> None:
        self._resolve = resolve
        self._namespace = namespace
        self._seconds = seconds
        self._clients: OrderedDict[str, ClusterClient] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, credentials: Credentials | None) -> ClusterClient:
        """Raises Unauthorized when there is nothing that opens a cluster."""
        if credentials is None or not credentials.values.get("server"):
            raise Unauthorized("No cluster was given.", advice="Import a cluster first.")
        key = fingerprint(credentials)
        found = self._clients.get(key)
        if found is None:
            found = ClusterClient(
                credentials, self._resolve, namespace=self._namespace, seconds=self._seconds
            )
            self._clients[key] = found
            self._forget_the_oldest()
        self._clients.move_to_end(key)
        return found

    async def aclose(self) -> None:
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()
        await asyncio.gather(*self._closing)

    def _forget_the_oldest(self) -> None:
        if len(self._clients) > CLIENTS_KEPT:
            _, oldest = self._clients.popitem(last=False)
            closing = asyncio.ensure_future(oldest.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def fingerprint(credentials: Credentials) -> str:
    """Stable for the values, and no way back to them."""
    text = json.dumps(dict(credentials.values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _configuration(server: str, token: str | None) -> Any:
    configuration = k8s.Configuration(host=server)
    configuration.client_side_validation = False
    if token:
        configuration.api_key = {"BearerToken": token}
        configuration.api_key_prefix = {"BearerToken": "Bearer"}
    return configuration
