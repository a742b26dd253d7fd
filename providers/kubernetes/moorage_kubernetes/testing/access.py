"""Who asks, and what they may: tokens, client certificates, and verbs that a test takes away."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import ApiError, Json, bad_request, forbidden

SERVICE_ACCOUNT = "system:serviceaccount:moorage-system:moorage"


@dataclass(frozen=True, slots=True)
class Denial:
    """Patterns over a verb, `resource.group` and a namespace ("" for what has none)."""

    verb: str
    resource: str
    namespace: str = "*"


@dataclass(slots=True)
class Access:
    """All may be done by a known user that is not denied."""

    tokens: dict[str, str] = field(default_factory=dict)  # token: user
    users: set[str] = field(default_factory=set)  # common names of client certificates
    denials: list[Denial] = field(default_factory=list)

    def user(self, authorization: str, common_name: str | None) -> str | None:
        """Who it is; None for whom nobody knows."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token in self.tokens:
            return self.tokens[token]
        return common_name if common_name in self.users and not authorization else None

    def denied(self, verb: str, resource: str, group: str, namespace: str) -> bool:
        whole = f"{resource}.{group}" if group else resource
        return any(
            fnmatchcase(verb, one.verb)
            and fnmatchcase(whole, one.resource)
            and fnmatchcase(namespace, one.namespace)
            for one in self.denials
        )

    def check(self, user: str, verb: str, resource: Resource, sub: str, namespace: str, name: str) -> None:
        """Raises ApiError 403."""
        plural = f"{resource.plural}/{sub}" if sub else resource.plural
        if not self.denied(verb, plural, resource.group, namespace):
            return
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{user}" cannot {verb} resource "{plural}" in API group "{resource.group}" {where}'
        error = forbidden(resource.plural, resource.group, name, why)
        if not name:
            message = f"{resource.qualified} is forbidden: {why}"
            error = ApiError(403, "Forbidden", message, details={"kind": resource.plural})
        raise error

    def review(self, body: Json) -> Json:
        """The answer to a SelfSubjectAccessReview. Raises ApiError 400."""
        spec = body.get("spec") or {}
        asked = spec.get("resourceAttributes")
        if asked is None and "nonResourceAttributes" not in spec:
            raise bad_request("spec: exactly one of resourceAttributes and nonResourceAttributes is required")
        asked = asked or {}
        plural = asked.get("resource", "")
        if asked.get("subresource"):
            plural += f"/{asked['subresource']}"
        denied = self.denied(
            asked.get("verb", ""), plural, asked.get("group", ""), asked.get("namespace", "")
        )
        status: Json = {"allowed": not denied}
        if not denied:
            status["reason"] = 'RBAC: allowed by ClusterRoleBinding "moorage"'
        return {
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {"creationTimestamp": None},
            "spec": spec,
            "status": status,
        }
