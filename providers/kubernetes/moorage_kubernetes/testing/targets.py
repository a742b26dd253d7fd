"""What a path names: /apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}/{subresource}."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_kubernetes.testing.resources import Catalog, Resource
from moorage_kubernetes.testing.statuses import no_such_path


@dataclass(frozen=True, slots=True)
class Target:
    """`namespace` is "" for all of them or none; `rest` is what follows `proxy/`."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""


def target(path: str, catalog: Catalog) -> Target:
    """Raises ApiError 404 for what this server does not have."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise no_such_path()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    resource = catalog.find(group, version, rest[0])
    if resource is None or (namespace and not resource.namespaced):
        raise no_such_path()
    name, subresource = (*rest[1:3], "", "")[:2]
    if resource.namespaced and name and not namespace:
        raise no_such_path()
    if subresource and subresource not in resource.subresources:
        raise no_such_path()
    if len(rest) > 3 and subresource != "proxy":
        raise no_such_path()
    below = path.partition("/proxy")[2] if subresource == "proxy" else ""
    return Target(resource, namespace, name, subresource, below)


def verb(method: str, named: bool, watching: bool) -> str:
    """The verb that permissions are written with."""
    match method:
        case "GET" | "HEAD":
            return "watch" if watching else "get" if named else "list"
        case "POST":
            return "create"
        case "PUT":
            return "update"
        case "PATCH":
            return "patch"
        case "DELETE":
            return "delete" if named else "deletecollection"
    return method.lower()
