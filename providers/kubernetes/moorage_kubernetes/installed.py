"""What is installed on a cluster, for who is about to make something there.

A check tells what it could read. Here that is not enough: what could not be read for the moment must not pass
for what is not there, or a deployment would be refused for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from moorage.errors import PermissionMissing
from moorage_kubernetes import reading
from moorage_kubernetes.reading import Reader
from moorage_kubernetes.tools import ClusterTools, FoundService, usable_tools


async def installed_tools(client: Reader, values: Mapping[str, str]) -> ClusterTools:
    """`values` are those of the credential. What we may not list is as if it were not there, as long as its
    address was not given. Raises ProviderErrors."""
    groups, services, metrics = await asyncio.gather(
        reading.api_groups(client), _services(client), _metrics(client)
    )
    return usable_tools(groups, services, values, metrics=metrics)


async def _services(client: Reader) -> tuple[FoundService, ...]:
    try:
        return await reading.services(client)
    except PermissionMissing:
        return ()


async def _metrics(client: Reader) -> bool:
    try:
        return await reading.metrics_answer(client)
    except PermissionMissing:
        return False
