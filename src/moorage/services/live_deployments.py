"""Deployments that are not over, for what must not go away under them: accounts, clusters, node groups."""

from __future__ import annotations

from collections.abc import Callable

from moorage.domain.deployment import Deployment, Phase
from moorage.ports.store import DeploymentFilter, Store

_LIVE = DeploymentFilter(frozenset(Phase) - {Phase.DELETED, Phase.FAILED})
_PAGE = 200


async def first_live(
    store: Store, organization_id: str, wanted: Callable[[Deployment], bool]
) -> Deployment | None:
    """The newest of the organization's live deployments that is `wanted`."""
    cursor: str | None = None
    while True:
        page = await store.deployments(organization_id, _LIVE, cursor, _PAGE)
        found = next(filter(wanted, page.items), None)
        if found is not None or (cursor := page.next_cursor) is None:
            return found
