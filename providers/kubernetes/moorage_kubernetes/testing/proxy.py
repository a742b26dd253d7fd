"""The way through the API server to a pod: services and pods, streamed in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.selectors import matches
from moorage_kubernetes.testing.statuses import Json, bad_request, not_found, unavailable
from moorage_kubernetes.testing.store import Store
from moorage_kubernetes.testing.targets import Target

_HOP = {
    "connection",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a pod listens; `headers` tell the shared server of simulated pods which one is meant."""

    host: str
    port: int
    headers: Mapping[str, str]


class Proxy:
    """`find` gives the address of a pod's container port, None where nothing listens."""

    def __init__(self, store: Store, find: Callable[[Json, int], Address | None]) -> None:
        self._store = store
        self._find = find
        self._turn = 0
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def serve(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Raises ApiError 404, or 503 where no pod is ready or it does not answer."""
        address = self._of_service(target) if target.resource == known.SERVICES else self._of_pod(target)
        assert self._session is not None
        raw = request.raw_path.partition("?")
        path = "/" + raw[0].partition("/proxy")[2].lstrip("/")
        url = URL(f"http://{address.host}:{address.port}{path}{raw[1]}{raw[2]}", encoded=True)
        headers = _passed(request.headers)
        headers.pop("Authorization", None)  # the server takes it off once it knows who asks
        headers.update(address.headers)
        headers["X-Forwarded-Uri"] = request.path
        body = request.content if request.body_exists else None
        try:
            found = await self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            )
        except aiohttp.ClientError as error:
            raise unavailable(f"error trying to reach service: {error}") from error
        async with found:
            response = web.StreamResponse(status=found.status, headers=_passed(found.headers))
            await response.prepare(request)
            async for chunk in _chunks(found):
                await response.write(chunk)
            await response.write_eof()
            return response

    def _of_service(self, target: Target) -> Address:
        scheme, name, wanted = _split(target.name)
        service = self._store.get(known.SERVICES, target.namespace, name)
        if service is None:
            raise not_found("services", "", name)
        port = _service_port(service, wanted)
        if port is None or scheme not in ("", "http"):
            raise unavailable(f'no service port "{wanted}" found for service "{name}"')
        found = []
        for pod in self._store.of(known.PODS, target.namespace):
            if matches({"matchLabels": service["spec"].get("selector") or {}}, _labels(pod)) and ready(pod):
                number = _container_port(pod, port.get("targetPort") or port["port"])
                address = None if number is None else self._find(pod, number)
                found += [address] if address else []
        if not found or not service["spec"].get("selector"):
            raise unavailable(f'no endpoints available for service "{target.name}"')
        self._turn += 1
        return found[self._turn % len(found)]

    def _of_pod(self, target: Target) -> Address:
        _, name, wanted = _split(target.name)
        pod = self._store.get(known.PODS, target.namespace, name)
        if pod is None:
            raise not_found("pods", "", name)
        number = _container_port(pod, wanted or 0)
        address = None if number is None else self._find(pod, number)
        if address is None:
            raise unavailable(f"error trying to reach service: pod {name} does not listen")
        return address


def ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )


def _split(text: str) -> tuple[str, str, str]:
    """`http:web:80`, `web:80`, `web` as scheme, name and port. Raises ApiError 400."""
    parts = text.split(":")
    match len(parts):
        case 1:
            return "", parts[0], ""
        case 2:
            return "", parts[0], parts[1]
        case 3:
            return parts[0], parts[1], parts[2]
    raise bad_request(f'invalid service request "{text}"')


def _service_port(service: Json, wanted: str) -> Json | None:
    ports = service["spec"].get("ports") or []
    for port in ports:
        if wanted in (str(port["port"]), port.get("name")) or (not wanted and len(ports) == 1):
            found: Json = port
            return found
    return None


def _container_port(pod: Json, wanted: int | str) -> int | None:
    if isinstance(wanted, int) and wanted:
        return wanted
    if isinstance(wanted, str) and wanted.isdigit():
        return int(wanted)
    ports = [port for one in pod["spec"]["containers"] for port in one.get("ports") or ()]
    found = [port["containerPort"] for port in ports if not wanted or port.get("name") == wanted]
    return found[0] if found else None


def _labels(pod: Json) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def _passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    made: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() not in _HOP:
            made.add(name, value)
    return made


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in response.content.iter_any():
        yield chunk
