"""The way of a cluster's own gateway to a deployment, where its owner named one. Pure.

It stands beside the way through the API server, which Moorage's gateway takes. Its path is that of the
deployment, which stays when the endpoint behind it is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # Kubernetes objects as they are sent

from moorage_kubernetes.tools import ClusterTools

Object = dict[str, Any]


def routes(
    gateway: str, path: str, name: str, port: int, metadata: Mapping[str, Any], tools: ClusterTools
) -> list[Object]:
    """`gateway` is `namespace/name`; requests below `/{path}` go to `port` of Service `name`. Nothing where
    the cluster has no Gateway API."""
    if not gateway or not tools.gateway_api:
        return []
    namespace, _, gateway_name = gateway.rpartition("/")
    parent = {"name": gateway_name, **({"namespace": namespace} if namespace else {})}
    rule: Object = {
        "matches": [{"path": {"type": "PathPrefix", "value": f"/{path}"}}],
        "filters": [
            {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
            }
        ],
        "backendRefs": [{"name": name, "port": port, "weight": 100}],
        # An inference may take as long as it takes.
        "timeouts": {"request": "0s"},
    }
    made: list[Object] = [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": dict(metadata),
            "spec": {"parentRefs": [parent], "rules": [rule]},
        }
    ]
    if tools.envoy_gateway:
        made.append(_traffic_policy(name, metadata))
    return made


def _traffic_policy(name: str, metadata: Mapping[str, Any]) -> Object:
    """Replicas of a model are slow and uneven: the one with the fewest requests under way is the best."""
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": dict(metadata),
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name}],
            "loadBalancer": {"type": "LeastRequest"},
            "retry": {
                "numRetries": 2,
                "retryOn": {"triggers": ["connect-failure", "reset-before-request"]},
            },
        },
    }
