"""A thin client of Moorage's HTTP API: one method per call, JSON in and out, every failure a `CliError`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self  # the API's documents are JSON
from urllib.parse import quote

import httpx

from moorage import __version__
from moorage.cli import sse
from moorage.cli.failures import (
    ApiProblem,
    CliError,
    ExitCode,
    NoSuchDeployment,
    NotThere,
    Unreachable,
)

Document = dict[str, Any]

ANSWER_SECONDS = 60.0
INFER_SECONDS = 600.0
CHECK_SECONDS = 120.0  # a cluster that does not answer is waited for
STREAM_SILENCE_SECONDS = 60.0  # the service sends a sign of life four times as often
RECONNECT_FOR_SECONDS = 60.0  # a service that is restarted comes back within this
RECONNECT_EVERY_SECONDS = 0.5

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, UnicodeError)
_BROKEN = (httpx.HTTPError, UnicodeError)  # the latter of a host that no name server could be asked for


class MoorageClient:
    """`with MoorageClient(url, key) as client:`. Raises ApiProblem and Unreachable, and nothing of httpx."""

    def __init__(
        self, base_url: str, key: str | None, *, reconnect_for: float = RECONNECT_FOR_SECONDS
    ) -> None:
        headers = {"user-agent": f"moorage-cli/{__version__}"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        try:
            self._http = httpx.Client(
                base_url=base_url, headers=headers, timeout=ANSWER_SECONDS, trust_env=_proxied(base_url)
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise Unreachable(base_url, f"this is no URL ({error})") from error
        self.base_url = base_url
        self._reconnect_for = reconnect_for

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # -- deployments -----------------------------------------------------------------------------------------

    def plan(self, body: Document) -> Document:
        return self._json("POST", "/v1/deployments/plan", json=body)

    def create(self, body: Document) -> Document:
        """Safe to lose the answer of: the request carries an Idempotency-Key and is sent a second time."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        try:
            return self._json("POST", "/v1/deployments", json=body, headers=headers)
        except _AnswerLost:
            return self._json("POST", "/v1/deployments", json=body, headers=headers)

    def deployment(self, deployment_id: str) -> Document:
        return self._json("GET", f"/v1/deployments/{_segment(deployment_id)}")

    def deployments(
        self,
        *,
        status: Sequence[str] = (),
        provider: str | None = None,
        model: str | None = None,
        name: str | None = None,
        limit: int = 200,
    ) -> list[Document]:
        """The newest `limit`, over as many pages as it takes."""
        params: dict[str, Any] = {"status": list(status), "provider": provider, "model": model, "name": name}
        params = {key: value for key, value in params.items() if value}
        found: list[Document] = []
        while True:
            page = self._json("GET", "/v1/deployments", params={**params, "limit": min(200, limit)})
            found += page["items"]
            if page["next_cursor"] is None or len(found) >= limit:
                return found[:limit]
            params["cursor"] = page["next_cursor"]

    def find(self, reference: str) -> Document:
        """A deployment by its id, its name, or the model that it alone serves."""
        if reference.startswith("dep_"):
            return self.deployment(reference)
        named = [] if "/" in reference else self.deployments(name=reference[:64])
        found = _present(named) or named[:1]
        if not found:
            found = _present(self.deployments(model=reference))
        if not found:
            raise NoSuchDeployment(reference, "`moorage ls` shows those that there are.")
        if len(found) > 1:
            ids = ", ".join(d["deployment_id"] for d in found)
            raise NoSuchDeployment(reference, f"Several serve that model; name one of them: {ids}.")
        return found[0]

    def delete(self, deployment_id: str) -> None:
        self._send("DELETE", f"/v1/deployments/{_segment(deployment_id)}")

    def stop(self, deployment_id: str) -> Document:
        return self._json("POST", f"/v1/deployments/{_segment(deployment_id)}/stop")

    def start(self, deployment_id: str) -> Document:
        return self._json("POST", f"/v1/deployments/{_segment(deployment_id)}/start")

    def scale(self, deployment_id: str, replicas: int, max_replicas: int | None) -> Document:
        body = {"min_replicas": replicas, **({"max_replicas": max_replicas} if max_replicas else {})}
        return self._json("POST", f"/v1/deployments/{_segment(deployment_id)}/scale", json=body)

    # -- what happens ----------------------------------------------------------------------------------------

    def events(self, deployment_id: str, after: str | None = None) -> list[Document]:
        """All that there are, or those after the event with the id `after`."""
        found: list[Document] = []
        path = f"/v1/deployments/{_segment(deployment_id)}/events"
        while True:
            page = self._json("GET", path, params={"limit": 1000, **({"after": after} if after else {})})
            found += page["items"]
            if len(page["items"]) < 1000:
                return found
            after = page["next_after"]

    def follow_events(self, deployment_id: str, after: str | None = None) -> Iterator[Document]:
        """All events from the first, or after the one with the id `after`, then new ones, until the
        deployment is deleted. A service that goes away is waited for; no event is lost or told twice."""
        path = f"/v1/deployments/{_segment(deployment_id)}/events"
        lost_at: float | None = None
        while True:
            try:
                for message in self._stream(path, {"after": after} if after else {}):
                    lost_at = None
                    after = message.id or after
                    yield json.loads(message.data)
                    if message.event == "deployment.deleted":
                        return
            except Unreachable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._reconnect_for:
                    raise
            time.sleep(RECONNECT_EVERY_SECONDS)

    def logs(self, deployment_id: str, tail: int) -> list[Document]:
        page = self._json("GET", f"/v1/deployments/{_segment(deployment_id)}/logs", params={"tail": tail})
        items: list[Document] = page["items"]
        return items

    def follow_logs(self, deployment_id: str, tail: int) -> Iterator[Document]:
        """Until the endpoint is gone."""
        for message in self._stream(f"/v1/deployments/{_segment(deployment_id)}/logs", {"tail": tail}):
            yield json.loads(message.data)

    def cost(self, deployment_id: str) -> Document:
        return self._json("GET", f"/v1/deployments/{_segment(deployment_id)}/cost")

    # -- compute, accounts -----------------------------------------------------------------------------------

    def gpus(self) -> Document:
        return self._json("GET", "/v1/gpus")

    def credentials(self) -> list[Document]:
        items: list[Document] = self._json("GET", "/v1/credentials")["items"]
        return items

    def store_credential(self, provider: str, name: str, values: Mapping[str, str]) -> Document:
        body = {"provider": provider, "name": name, "values": dict(values)}
        return self._json("POST", "/v1/credentials", json=body)

    def remove_credential(self, credential_id: str) -> None:
        self._send("DELETE", f"/v1/credentials/{_segment(credential_id)}")

    # -- clusters --------------------------------------------------------------------------------------------

    def clusters(self) -> list[Document]:
        items: list[Document] = self._json("GET", "/clusters/")["items"]
        return items

    def cluster(self, reference: str) -> Document:
        """A cluster by its UUID or its name."""
        found = [c for c in self.clusters() if reference in (c["uuid"], c["name"])]
        if not found:
            raise NotThere("cluster", reference, "`moorage clusters ls` shows those that there are.")
        return found[0]

    def import_cluster(self, body: Document) -> Document:
        """Safe to lose the answer of, as `create`."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        try:
            return self._json("POST", "/clusters/", json=body, headers=headers, timeout=CHECK_SECONDS)
        except _AnswerLost:
            return self._json("POST", "/clusters/", json=body, headers=headers, timeout=CHECK_SECONDS)

    def check_cluster(self, cluster_id: str) -> Document:
        return self._json("POST", f"/clusters/{_segment(cluster_id)}/check/", timeout=CHECK_SECONDS)

    def remove_cluster(self, cluster_id: str) -> None:
        self._send("DELETE", f"/clusters/{_segment(cluster_id)}/")

    def declare_node_group(self, cluster_id: str, body: Document) -> Document:
        return self._json("POST", f"/clusters/{_segment(cluster_id)}/nodegroups/", json=body)

    def remove_node_group(self, cluster_id: str, group_id: str) -> None:
        self._send("DELETE", f"/clusters/{_segment(cluster_id)}/nodegroups/{_segment(group_id)}/")

    # -- registered models -----------------------------------------------------------------------------------

    def registered_models(self) -> list[Document]:
        """The newest first, over as many pages as it takes."""
        found: list[Document] = []
        path: str | None = "/models?limit=200"
        while path is not None:
            response = self._send("GET", path)
            found += self._list(response)
            path = response.links.get("next", {}).get("url")
        return found

    def register_model(self, body: Document) -> Document:
        """Safe to lose the answer of, as `create`."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        try:
            return self._json("POST", "/models", json=body, headers=headers)
        except _AnswerLost:
            return self._json("POST", "/models", json=body, headers=headers)

    def remove_model(self, model_id: str) -> None:
        self._send("DELETE", f"/models/{_segment(model_id)}")

    # -- models, identity ------------------------------------------------------------------------------------

    def infer(self, model: str, body: Document) -> Document:
        return self._json(
            "POST", f"/v1/models/{quote(model, safe='/')}/infer", json=body, timeout=INFER_SECONDS
        )

    def sign_in(self, username: str, password: str) -> Document:
        return self._json("POST", "/auth/token", json={"username": username, "password": password})

    def webhook_secret(self) -> Document:
        return self._json("GET", "/v1/webhook-secret")

    def keys(self) -> list[Document]:
        items: list[Document] = self._json("GET", "/v1/keys")["items"]
        return items

    def create_key(self, name: str, role: str) -> Document:
        return self._json("POST", "/v1/keys", json={"name": name, "role": role})

    def revoke_key(self, key_id: str) -> Document:
        return self._json("DELETE", f"/v1/keys/{_segment(key_id)}")

    # -- sending ---------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **options: Any) -> Document:
        response = self._send(method, path, **options)
        try:
            document: Document = response.json()
        except ValueError as error:
            raise _not_moorage(self.base_url, response) from error
        return document

    def _list(self, response: httpx.Response) -> list[Document]:
        try:
            found = response.json()
        except ValueError as error:
            raise _not_moorage(self.base_url, response) from error
        if not isinstance(found, list):
            raise _not_moorage(self.base_url, response)
        return found

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except _BROKEN as error:
            raise self._lost(error) from error
        if not response.is_success:
            raise _problem(self.base_url, response)
        return response

    def _stream(self, path: str, params: Mapping[str, Any]) -> Iterator[sse.Message]:
        timeout = httpx.Timeout(ANSWER_SECONDS, read=STREAM_SILENCE_SECONDS)
        headers = {"accept": sse.MEDIA_TYPE}
        try:
            with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise _problem(self.base_url, response)
                yield from sse.messages(response.iter_lines())
        except _BROKEN as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Unreachable:
        cause = str(error) or type(error).__name__
        never_sent = isinstance(error, _NEVER_SENT)
        return (Unreachable if never_sent else _AnswerLost)(self.base_url, cause)


class _AnswerLost(Unreachable):
    """The connection ended before the answer: the request may or may not have been done."""


def _segment(value: str) -> str:
    return quote(value, safe="")


def _present(found: Sequence[Document]) -> list[Document]:
    return [d for d in found if d["status"] != "deleted"]


def _proxied(url: str) -> bool:
    """A proxy of the environment is for other machines; it could not reach this one's loopback."""
    return httpx.URL(url).host not in ("127.0.0.1", "::1", "localhost")


def _problem(url: str, response: httpx.Response) -> CliError:
    try:
        document = response.json()
    except ValueError:
        return _not_moorage(url, response)
    if not isinstance(document, dict) or "detail" not in document:
        return _not_moorage(url, response)
    return ApiProblem({"status": response.status_code, **document})


def _not_moorage(url: str, response: httpx.Response) -> CliError:
    return CliError(
        {
            "title": "No answer of Moorage",
            "detail": f"{url} answered {response.status_code} with something that is not of this API.",
            "code": "not_moorage",
            "advice": "Is the URL right? A proxy in between may have answered.",
        },
        ExitCode.FAILED,
    )
