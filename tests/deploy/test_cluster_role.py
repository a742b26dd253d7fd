"""The ClusterRole of the driver `kubernetes`: all that the driver asks for, and nothing that it never does.

What it asks for is not read off the code: the stand-in API server hears it, over a life with KEDA and one
without, one without room, and one whose Deployment somebody else took away.
"""

from __future__ import annotations

from pathlib import Path

from moorage_kubernetes.testing.resources import ADD_ONS

from .cluster_life import Permission, asked_of, operators_cluster
from .manifests import KUSTOMIZE, Document, built, one

# Allowed to every account that is known, by Kubernetes' own role system:basic-user.
EVERYBODY = {Permission("authorization.k8s.io", "selfsubjectaccessreviews", "create")}


def allowed(role: Document) -> set[Permission]:
    return {
        Permission(group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def test_the_role_allows_what_the_driver_asks_of_a_cluster_and_nothing_else(tmp_path: Path) -> None:
    asked: set[Permission] = set()
    for add_ons in (tuple(ADD_ONS), ("metrics_server",)):
        async with operators_cluster(tmp_path, add_ons) as life:
            await life.straight()
            await life.without_room()
            await life.robbed()
            assert life.cluster.refused == []
            asked |= asked_of(life.cluster)
    role = allowed(one(built(KUSTOMIZE / "overlays" / "example"), "ClusterRole", "moorage-managed"))
    assert sorted(asked - EVERYBODY - role) == [], "asked, and not allowed"
    assert sorted(role - asked) == [], "allowed, and never asked"


def test_the_role_has_no_pattern_and_is_bound_to_its_own_account_alone() -> None:
    documents = built(KUSTOMIZE / "overlays" / "example")
    assert not [p for p in allowed(one(documents, "ClusterRole", "moorage-managed")) if "*" in str(p)]
    binding = one(documents, "ClusterRoleBinding", "moorage-managed")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "moorage-managed", "namespace": "moorage-system"}
    ]
    assert binding["roleRef"]["name"] == "moorage-managed"
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "moorage", "pods of the service are not that account"
