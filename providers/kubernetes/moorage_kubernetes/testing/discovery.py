"""What a client asks first: versions, groups, and the resources of each."""

from __future__ import annotations

from collections.abc import Iterable

from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import Json, no_such_path


def version(minor: str) -> Json:
    """`minor` as 1.36."""
    major, _, small = minor.partition(".")
    return {
        "major": major,
        "minor": small,
        "gitVersion": f"v{minor}.0",
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2026-04-22T00:00:00Z",
        "goVersion": "go1.26",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def core_versions(address: str) -> Json:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(resources: Iterable[Resource]) -> Json:
    names = sorted({r.group for r in resources if r.group})
    versions = {r.group: r.version for r in resources}
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, versions[name]) for name in names],
    }


def group(resources: Iterable[Resource], name: str) -> Json:
    """Raises ApiError 404."""
    for resource in resources:
        if resource.group == name and name:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, resource.version)}
    raise no_such_path()


def resource_list(resources: Iterable[Resource], name: str, wanted: str) -> Json:
    """The resources of one group and version. Raises ApiError 404."""
    listed: list[Json] = []
    for resource in resources:
        if (resource.group, resource.version) == (name, wanted):
            listed.append(_entry(resource))
            listed.extend(_subresource(resource, sub) for sub in sorted(resource.subresources))
    if not listed:
        raise no_such_path()
    group_version = f"{name}/{wanted}" if name else wanted
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": listed,
    }


def _group(name: str, wanted: str) -> Json:
    one = {"groupVersion": f"{name}/{wanted}", "version": wanted}
    return {"name": name, "versions": [one], "preferredVersion": one}


def _entry(resource: Resource) -> Json:
    entry: Json = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    return entry | ({"shortNames": list(resource.short)} if resource.short else {})


def _subresource(resource: Resource, sub: str) -> Json:
    entry: Json = {
        "name": f"{resource.plural}/{sub}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["get", "patch", "update"] if sub in ("status", "scale") else ["get"],
    }
    if sub == "scale":
        entry |= {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    if sub == "proxy":
        entry["verbs"] = ["create", "delete", "get", "patch", "update"]
    return entry
