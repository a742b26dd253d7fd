"""Gateway API status: classes, gateways and routes are accepted where what they name exists."""

from __future__ import annotations

from collections.abc import Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.controllers.owners import condition, kept
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, key_of
from moorage_kubernetes.testing.world import World

CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"


class Routes:
    def __init__(self, world: World) -> None:
        self._world = world
        self._routes: dict[Key, set[Key]] = {}  # by the services that they name

    def concerned(self, change: Change) -> Iterable[Key]:
        """A class or a gateway may concern all: there are few of them."""
        if change.resource in (known.GATEWAY_CLASSES, known.GATEWAYS):
            return self.everything()
        if change.resource == known.HTTP_ROUTES:
            namespace, name = key_of(change.object)
            key = f"httproutes/{namespace}", name
            for service in _backends(change.object):
                self._routes.setdefault(service, set()).add(key)
            return [key]
        if change.resource == known.SERVICES and change.kind != "MODIFIED":
            return sorted(self._routes.get(key_of(change.object), ()))
        return []

    def everything(self) -> Iterable[Key]:
        store = self._world.store
        found: list[Key] = [("class", value["metadata"]["name"]) for value in store.of(known.GATEWAY_CLASSES)]
        for resource in (known.GATEWAYS, known.HTTP_ROUTES):
            found += [(f"{resource.plural}/{ns}", name) for ns, name in map(key_of, store.of(resource))]
        return found

    def reconcile(self, key: Key) -> None:
        where, name = key
        plural, _, namespace = where.partition("/")
        match plural:
            case "class":
                self._class(name)
            case "gateways":
                self._gateway(namespace, name)
            case "httproutes":
                self._route(namespace, name)

    def _class(self, name: str) -> None:
        value = self._world.store.get(known.GATEWAY_CLASSES, "", name)
        if value is not None and value["spec"]["controllerName"] == CONTROLLER:
            accepted = _met("Accepted", True, "Accepted", "Valid GatewayClass", value)
            self._write(known.GATEWAY_CLASSES, value, {"conditions": [accepted]})

    def _gateway(self, namespace: str, name: str) -> None:
        value = self._world.store.get(known.GATEWAYS, namespace, name)
        if value is None:
            return
        known_class = self._world.store.get(known.GATEWAY_CLASSES, "", value["spec"]["gatewayClassName"])
        if known_class is None:
            return
        programmed = _met("Programmed", True, "Programmed", "Address assigned to the Gateway", value)
        status = {
            "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
            "conditions": [_met("Accepted", True, "Accepted", "The Gateway is accepted", value), programmed],
        }
        self._write(known.GATEWAYS, value, status)

    def _route(self, namespace: str, name: str) -> None:
        value = self._world.store.get(known.HTTP_ROUTES, namespace, name)
        if value is None:
            return
        store = self._world.store
        missing = [key[1] for key in _backends(value) if store.get(known.SERVICES, *key) is None]
        parents = []
        for parent in value["spec"].get("parentRefs") or ():
            gateway = self._world.store.get(
                known.GATEWAYS, parent.get("namespace", namespace), parent["name"]
            )
            if gateway is None:
                continue
            told = f"service {missing[0]} not found" if missing else "Resolved all the Object references"
            reason = "BackendNotFound" if missing else "ResolvedRefs"
            conditions = [
                _met("Accepted", True, "Accepted", "Route is accepted", value),
                _met("ResolvedRefs", not missing, reason, told, value),
            ]
            parents.append({"controllerName": CONTROLLER, "parentRef": parent, "conditions": conditions})
        before = (value.get("status") or {}).get("parents") or []
        for old, new in zip(before, parents, strict=False):
            new["conditions"] = kept(old["conditions"], new["conditions"])
        self._world.set_status(known.HTTP_ROUTES, value, {"parents": parents})

    def _write(self, resource: known.Resource, value: Json, status: Json) -> None:
        before = (value.get("status") or {}).get("conditions") or []
        status["conditions"] = kept(before, status["conditions"])
        self._world.set_status(resource, value, status)


def _backends(route: Json) -> list[Key]:
    """The services that a route names."""
    namespace = route["metadata"]["namespace"]
    return [
        (backend.get("namespace", namespace), backend["name"])
        for rule in route["spec"].get("rules") or ()
        for backend in rule.get("backendRefs") or ()
        if backend.get("kind", "Service") == "Service"
    ]


def _met(kind: str, status: bool, reason: str, message: str, value: Json) -> Json:
    made = condition(kind, status, reason, message, now())
    del made["lastUpdateTime"]
    return {**made, "observedGeneration": value["metadata"].get("generation", 1)}
