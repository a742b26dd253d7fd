"""The provider `runpod`: RunPod serverless endpoints under the caller's own key.

It holds no state that matters. Whatever it made is found again by name and by the marks in its environment,
so that any process can go on where another one died.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from weakref import WeakValueDictionary

from moorage.domain.compute import Bill, Feature, Offer, Requirements
from moorage.domain.deployment import Handle
from moorage.domain.naming import parse_external_name
from moorage.domain.observation import Observation
from moorage.errors import Gone
from moorage.ports.provider import Absent, Account, Credentials, LogLine, RevisionPlan, StillThere
from moorage_runpod.api import AccountApi
from moorage_runpod.bodies import wanted
from moorage_runpod.endpoints import EndpointsOf
from moorage_runpod.environment import INSTALLATION
from moorage_runpod.keys import FIELD, account_id, has_key_form, key_of
from moorage_runpod.log_reading import read_logs
from moorage_runpod.looking import Looker
from moorage_runpod.market import Market
from moorage_runpod.offers import PROVIDER, make_offers
from moorage_runpod.settings import RunPodSettings
from moorage_runpod.transport import Transport
from moorage_runpod.wire import Endpoint


class RunPodProvider:
    name = PROVIDER
    unsupported: Mapping[Feature, str] = {
        Feature.SPOT: "RunPod serverless has one price: flex workers are not sold as spot capacity",
        Feature.REGION: "RunPod places by data center: name them in data_centers",
        Feature.WORKLOAD: "RunPod scales by workers: use workers_min, idle_timeout and the like",
        Feature.CLUSTER: "RunPod is no cluster of yours",
    }
    credential_fields: Mapping[str, str] = {
        FIELD: "a RunPod API key with read and write permission on serverless endpoints"
    }

    def __init__(self, settings: RunPodSettings) -> None:
        self._settings = settings
        self._transport = Transport()
        self._market = Market()
        self._endpoints = EndpointsOf(settings)
        self._looker = Looker(settings)
        self._ends: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()  # by endpoint id

    def credentials_of(self, bearer: str) -> Credentials | None:
        return Credentials({FIELD: bearer}) if has_key_form(bearer) else None

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        """Lists the endpoints, the least that the key must be able to do."""
        api = self._api(credentials)
        await api.endpoints()
        return Account(account_id(api.key), "a RunPod account, by one of its API keys")

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        catalog = await self._market.catalog(self._api(credentials))
        return make_offers(need, catalog, self._settings)

    async def find(self, name: str, credentials: Credentials | None) -> Handle | None:
        found = await self._endpoints.find(self._api(credentials), name)
        return None if found is None else _handle(found)

    async def create(self, plan: RevisionPlan, name: str, credentials: Credentials | None) -> Handle:
        """A name is adopted as it is; `apply` changes it. RunPod takes an endpoint that it has no room for:
        `observe` tells of that."""
        goal = wanted(plan, name, self._settings)
        return _handle(await self._endpoints.create(self._api(credentials), goal))

    async def observe(self, handle: Handle, credentials: Credentials | None) -> Observation:
        api = self._api(credentials)
        return await self._looker.look(api, await self._id(api, handle), handle.ref)

    async def apply(self, handle: Handle, plan: RevisionPlan, credentials: Credentials | None) -> Handle:
        goal = wanted(plan, handle.name, self._settings)
        api = self._api(credentials)
        id_ = await self._id(api, handle)
        await self._endpoints.change(api, goal, id_)
        return Handle(handle.provider, handle.name, {**handle.ref, "id": id_})

    async def delete(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        id_ = handle.ref.get("id")
        answer = await self._endpoints.delete(self._api(credentials), handle.name, id_)
        ended = self._ends.get(id_) if id_ is not None else None
        if isinstance(answer, Absent) and ended is not None:
            ended.set()
        return answer

    async def owned(self, credentials: Credentials | None) -> AsyncIterator[Handle]:
        """What has a name of ours and the mark of this installation."""
        for endpoint in await self._api(credentials).endpoints():
            marked = endpoint.env.get(INSTALLATION) == self._settings.installation
            if marked and parse_external_name(endpoint.name) is not None:
                yield _handle(endpoint)

    async def logs(
        self, handle: Handle, credentials: Credentials | None, *, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Of the workers that are there now, and of those that come while it is followed."""
        api = self._api(credentials)
        id_ = await self._id(api, handle)
        ended = self._ends.setdefault(id_, asyncio.Event())
        async with aclosing(read_logs(api, id_, tail=tail, follow=follow, ended=ended)) as lines:
            async for line in lines:
                yield line

    async def billed(self, handle: Handle, credentials: Credentials | None, since: datetime) -> Bill:
        """RunPod bills by whole hours, and begins with the one that `since` is in."""
        api = self._api(credentials)
        records, now = await api.bill(await self._id(api, handle), since)
        start = min((r.start_time for r in records), default=since)
        return Bill(sum(r.total_amount for r in records), min(start, since), now)

    async def aclose(self) -> None:
        self._market.close()
        await self._transport.aclose()

    def _api(self, credentials: Credentials | None) -> AccountApi:
        return AccountApi(self._transport, self._settings.api_url, key_of(credentials))

    async def _id(self, api: AccountApi, handle: Handle) -> str:
        """RunPod's id; of a handle that was made from the name alone, by the list. Raises Gone."""
        known = handle.ref.get("id")
        if known is not None:
            return known
        found = await self._endpoints.find(api, handle.name)
        if found is None:
            raise Gone(f"RunPod has no endpoint {handle.name}")
        return found.id


def _handle(endpoint: Endpoint) -> Handle:
    return Handle(PROVIDER, endpoint.name, {"id": endpoint.id})
