"""What stands between a valid object and the store: namespaces, limits, quotas, pod security, webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.faults import Faults, hits, named
from moorage_kubernetes.testing.quantities import quantity, shown
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.security import violations
from moorage_kubernetes.testing.statuses import ApiError, Cause, Json, forbidden, invalid, not_found
from moorage_kubernetes.testing.store import Store

Amounts = dict[str, Fraction]
_TERMINAL = ("Succeeded", "Failed")


class Admission:
    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def create(self, resource: Resource, value: Json) -> None:
        """Fills in what the namespace prescribes. Raises ApiError 403, 404 or 422."""
        self._namespace(resource, value)
        self.write(resource, value)
        if resource == known.PODS:
            self._limits(value)
            self._security(value)
            if hits(self._faults.quota, value):
                why = "exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0"
                raise forbidden("pods", "", value["metadata"]["name"], why)
        self._quota(resource, value)

    def write(self, resource: Resource, value: Json) -> None:
        """What webhooks have to say of any write."""
        name = value["metadata"]["name"]
        route = f"{resource.plural}/{name}"
        if named(self._faults.admission_forbidden, route):
            message = self._faults.admission_message
            raise ApiError(403, "Forbidden", message, details={"name": name, "kind": resource.plural})
        if named(self._faults.admission_invalid, route):
            cause = Cause("FieldValueInvalid", f"Invalid value: {self._faults.admission_message}", "spec")
            raise invalid(resource.kind, resource.group, name, [cause])

    def _namespace(self, resource: Resource, value: Json) -> None:
        if not resource.namespaced:
            return
        name = value["metadata"]["namespace"]
        found = self._store.get(known.NAMESPACES, "", name)
        if found is None:
            raise not_found("namespaces", "", name)
        if "deletionTimestamp" in found["metadata"]:
            why = f"unable to create new content in namespace {name} because it is being terminated"
            error = forbidden(resource.plural, resource.group, value["metadata"]["name"], why)
            message = f"namespace {name} is being terminated"
            cause = Cause("NamespaceTerminating", message, "metadata.namespace")
            error.details["causes"] = [cause.as_json()]
            raise error

    def _security(self, pod: Json) -> None:
        namespace = self._store.get(known.NAMESPACES, "", pod["metadata"]["namespace"])
        labels = (namespace or {"metadata": {}})["metadata"].get("labels") or {}
        level = labels.get("pod-security.kubernetes.io/enforce", "privileged")
        found = violations(pod["spec"], level)
        if found:
            why = f'violates PodSecurity "{level}:latest": {", ".join(found)}'
            raise forbidden("pods", "", pod["metadata"]["name"], why)

    def _limits(self, pod: Json) -> None:
        for held in self._store.of(known.LIMIT_RANGES, pod["metadata"]["namespace"]):
            for limit in held["spec"]["limits"]:
                if limit["type"] == "Container":
                    for container in pod["spec"]["containers"]:
                        _limit(pod, container, limit)

    def _quota(self, resource: Resource, value: Json) -> None:
        if not resource.namespaced:
            return
        asked = usage(resource, value)
        for quota in self._store.of(known.QUOTAS, value["metadata"]["namespace"]):
            hard = {name: quantity(text) for name, text in (quota["spec"].get("hard") or {}).items()}
            self._mentioned(resource, value, quota, hard)
            used = self.used(quota)
            over = [n for n in sorted(hard) if asked.get(n) and used[n] + asked[n] > hard[n]]
            if over:
                why = f"exceeded quota: {quota['metadata']['name']}"
                for word, amounts in (("requested", asked), ("used", used), ("limited", hard)):
                    why += f", {word}: " + ",".join(f"{n}={_written(n, amounts[n])}" for n in over)
                raise forbidden(resource.plural, resource.group, value["metadata"]["name"], why)

    def _mentioned(self, resource: Resource, value: Json, quota: Json, hard: Amounts) -> None:
        """A quota over cpu or memory wants every container to say how much."""
        if resource != known.PODS:
            return
        missing = []
        for name in sorted(hard):
            side, _, what = name.rpartition(".")
            if side in ("requests", "limits") and what in ("cpu", "memory"):
                bare = [
                    container["name"]
                    for container in value["spec"]["containers"]
                    if what not in (container.get("resources") or {}).get(side, {})
                ]
                missing += [f"{name} for: {','.join(bare)}"] if bare else []
        if missing:
            why = f"failed quota: {quota['metadata']['name']}: must specify {'; '.join(missing)}"
            raise forbidden("pods", "", value["metadata"]["name"], why)

    def used(self, quota: Json) -> Amounts:
        """What the namespace uses of what the quota counts."""
        hard = quota["spec"].get("hard") or {}
        total: Amounts = {name: Fraction(0) for name in hard}
        namespace = quota["metadata"]["namespace"]
        for resource in self._store.resources():
            if not resource.namespaced or resource == known.EVENTS:
                continue
            for value in self._store.of(resource, namespace):
                for name, amount in usage(resource, value).items():
                    if name in total:
                        total[name] += amount
        return total


def usage(resource: Resource, value: Json) -> Amounts:
    """What one object counts for, under the names that quotas use."""
    one = Fraction(1)
    counted = {f"count/{resource.qualified}": one}
    if resource == known.PODS:
        if value.get("status", {}).get("phase") in _TERMINAL:
            return {}
        counted["pods"] = one
        for side, name, amount in _pod_amounts(value["spec"]):
            counted[f"{side}.{name}"] = counted.get(f"{side}.{name}", Fraction(0)) + amount
            if side == "requests" and "/" not in name:
                counted[name] = counted[f"{side}.{name}"]
    elif resource == known.CLAIMS:
        counted["persistentvolumeclaims"] = one
        counted["requests.storage"] = quantity(value["spec"]["resources"]["requests"]["storage"])
    elif resource in (known.SERVICES, known.SECRETS, known.CONFIG_MAPS):
        counted[resource.plural] = one
    return counted


def _pod_amounts(spec: Json) -> Iterator[tuple[str, str, Fraction]]:
    for container in spec["containers"]:
        for side in ("requests", "limits"):
            for name, text in ((container.get("resources") or {}).get(side) or {}).items():
                yield side, name, quantity(text)


def _limit(pod: Json, container: Json, limit: Json) -> None:
    asked = container.setdefault("resources", {})
    for name, text in (limit.get("default") or {}).items():
        asked.setdefault("limits", {}).setdefault(name, text)
    for name, text in (limit.get("defaultRequest") or {}).items():
        asked.setdefault("requests", {}).setdefault(name, text)
    for name, text in (limit.get("max") or {}).items():
        held = (asked.get("limits") or {}).get(name)
        if held is not None and quantity(held) > quantity(text):
            why = f"maximum {name} usage per Container is {text}, but limit is {held}"
            raise forbidden("pods", "", pod["metadata"]["name"], why)


def _written(name: str, amount: Fraction) -> str:
    return shown(amount, "bytes" if name.endswith(("memory", "storage")) else "")
