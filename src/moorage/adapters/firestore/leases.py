"""Leases: who may work on what until when. A claim searches what is free, and takes each row only if it has
not changed since: so no two claims overlap, and a claim that met another looks again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from moorage.adapters.firestore import queries
from moorage.adapters.firestore.bodies import Bodies
from moorage.adapters.firestore.changing import Decide, change_each
from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import (
    DUTIES,
    Alter,
    Create,
    Found,
    Place,
    claim_times,
    document_id,
    place_of,
    value_of,
)
from moorage.adapters.firestore.failures import Conflict, Unsure
from moorage.adapters.firestore.kinds import DELIVERY, DEPLOYMENT, JOB, Fields, Kind
from moorage.adapters.firestore.queries import LEASE_FIELDS
from moorage.adapters.row_codec import from_micros, to_micros
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment
from moorage.domain.job import Job
from moorage.ports.store import Claimable, Lease

L = TypeVar("L", Deployment, Delivery, Job)

# Searches up to so many documents that a claim would find now.
Search = Callable[[int], Awaitable[Sequence[Found]]]
ROUNDS = 12  # searches of one claim that meets others at each
_LEASED: Mapping[Claimable, Kind[Any]] = {  # Any: kinds of several rows
    "deployments": DEPLOYMENT,
    "deliveries": DELIVERY,
    "jobs": JOB,
}


class Leases:
    def __init__(self, database: Database, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies
        # A process does not race itself: claims of one kind take turns.
        self._deployments, self._deliveries = asyncio.Lock(), asyncio.Lock()

    async def claim_deployments(
        self, lease: Lease, now: datetime, limit: int, home: str | None
    ) -> Sequence[Deployment]:
        async def search(count: int) -> Sequence[Found]:
            homes, at = _homes(home), to_micros(now)
            here, elsewhere = await asyncio.gather(
                self._database.find(queries.DUE_AT_HOME.search(home=homes, claim_at=at, limit=count)),
                self._database.find(queries.DUE_ELSEWHERE.search(away_at=at, limit=count)),
            )
            rows = {row.place: row for row in (*here, *elsewhere)}
            return sorted(rows.values(), key=_due_order)[:count]

        async with self._deployments:
            claimed = await self.claim(DEPLOYMENT, search, lease, now, limit, home)
        return sorted(claimed, key=_due)

    async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]:
        async def search(count: int) -> Sequence[Found]:
            return await self._database.find(
                queries.DUE_DELIVERIES.search(claim_at=to_micros(now), limit=count)
            )

        async with self._deliveries:
            claimed = await self.claim(DELIVERY, search, lease, now, limit)
        return sorted(claimed, key=_due)

    async def claim(
        self, kind: Kind[L], search: Search, lease: Lease, now: datetime, limit: int, home: str | None = None
    ) -> list[L]:
        """In no order. First what `search` names first; once it met another claim, any of what it finds."""
        claimed: list[L] = []
        count, crowded = limit, False
        for _ in range(ROUNDS):
            missing = limit - len(claimed)
            found = list(await search(count)) if missing > 0 else []
            if crowded:
                random.shuffle(found)
            taken = await self._take(kind, found[:missing], lease, now, home)
            claimed += taken
            crowded = len(taken) < len(found[:missing])
            if not crowded:
                break
            count = limit * 4
        return claimed

    async def claim_duty(self, duty: str, lease: Lease, now: datetime) -> bool:
        place = Place(DUTIES, document_id(duty))
        fields: Fields = {"lease_token": lease.token, "lease_until": to_micros(lease.until)}
        unsure = False
        async for _ in self._database.tries():
            held = (await self._database.get([place])).get(place)
            if held is not None and held.fields["lease_until"] > to_micros(now):
                return unsure and bool(held.fields["lease_token"] == lease.token)
            change = Create(place, fields) if held is None else Alter(place, fields, held.updated)
            try:
                await self._database.write([change])
            except Conflict:
                continue
            except Unsure:
                unsure = True
                continue
            return True
        return False

    async def renew(
        self, kind: Claimable, held: Mapping[str, str], until: datetime
    ) -> tuple[frozenset[str], bool]:
        """The ids that are still held, and whether any is free sooner than it would have been."""
        sooner = False
        places = {place_of(_LEASED[kind], id_): id_ for id_ in held}

        def renewed(fields: Mapping[str, Any]) -> Fields | None:
            nonlocal sooner
            if fields.get("lease_token") != held[fields["id"]]:
                return None
            sooner = sooner or fields["lease_until"] > to_micros(until)
            changed = {"lease_until": to_micros(until)}
            return {**changed, **claim_times({**fields, **changed})}

        found = await self._database.get(places.keys(), LEASE_FIELDS)
        made = await change_each(self._database, list(found.values()), LEASE_FIELDS, renewed)
        return frozenset(places[place] for place in made), sooner

    async def held(self, kind: Claimable, held: Mapping[str, str]) -> frozenset[str]:
        places = {place_of(_LEASED[kind], id_): id_ for id_ in held}
        found = await self._database.get(places.keys(), ("lease_token",))
        return frozenset(
            places[place]
            for place, row in found.items()
            if row.fields.get("lease_token") == held[places[place]]
        )

    async def wake(self, deployment_ids: Sequence[str], now: datetime) -> None:
        places = {place_of(DEPLOYMENT, id_) for id_ in deployment_ids}
        found = await self._database.get(places, LEASE_FIELDS)
        await change_each(self._database, list(found.values()), LEASE_FIELDS, woken(now))

    async def next_due(self, kind: Claimable, now: datetime, home: str | None) -> datetime | None:
        first: list[tuple[str, queries.Search]]
        match kind:
            case "deployments":
                first = [
                    ("claim_at", queries.NEXT_AT_HOME.search(home=_homes(home), limit=1)),
                    ("away_at", queries.NEXT_ELSEWHERE.search(limit=1)),
                ]
            case "deliveries":
                first = [("claim_at", queries.NEXT_DELIVERY.search(limit=1))]
            case "jobs":
                first = [("claim_at", queries.NEXT_JOB.search(limit=1))]
        answers = await asyncio.gather(*(self._database.find(search) for _, search in first))
        moments = [row.fields[name] for (name, _), rows in zip(first, answers, strict=True) for row in rows]
        return max(from_micros(min(moments)), now) if moments else None

    async def _take(
        self, kind: Kind[L], found: Sequence[Found], lease: Lease, now: datetime, home: str | None
    ) -> list[L]:
        bodies = dict(zip((row.place for row in found), await self._bodies.of(found), strict=True))
        versions = {row.place: row for row in found}
        fields = (*LEASE_FIELDS, "version")
        made = await change_each(self._database, found, fields, _leased(lease, to_micros(now), home, found))
        taken = []
        for place in made:
            row = value_of(kind, versions[place], bodies[place])
            assert isinstance(row, Deployment | Delivery | Job)
            taken.append(row)
        return taken


def woken(now: datetime) -> Decide:
    """`due_at` for the next claim; `woken_at` so that the write of a holder, who has not seen what the wake
    is about, does not put it off (`plan`). What nobody holds and is due needs nothing."""
    at = to_micros(now)

    def decide(fields: Mapping[str, Any]) -> Fields | None:
        due_at = fields.get("due_at")
        if fields.get("lease_token") is None and due_at is not None and due_at <= at:
            return {}
        changed = {"due_at": at if due_at is None else min(due_at, at), "woken_at": at}
        return {**changed, **claim_times({**fields, **changed})}

    return decide


def _leased(lease: Lease, now: int, home: str | None, found: Sequence[Found]) -> Decide:
    """Takes what is as it was found, and free still. What has changed meanwhile has another body."""
    before = {row.fields["id"]: (row.fields["version"], row.fields.get("due_at")) for row in found}
    until = to_micros(lease.until)

    def decide(fields: Mapping[str, Any]) -> Fields | None:
        if (fields["version"], fields.get("due_at")) != before[fields["id"]]:
            return None
        if fields.get("lease_token") == lease.token:  # by a batch whose answer was lost
            return {}
        times = claim_times(fields)
        at_home = "home" not in fields or fields["home"] in _homes(home)
        free_at = times["claim_at"] if at_home else times["away_at"]
        if not isinstance(free_at, int) or free_at > now:
            return None
        changed: Fields = {"lease_token": lease.token, "lease_until": until, "woken_at": None}
        return {**changed, **claim_times({**fields, **changed})}

    return decide


def _homes(home: str | None) -> list[str]:
    """As the field has it: empty for none."""
    return [""] if home is None else ["", home]


def _due_order(found: Found) -> tuple[int, str]:
    return found.fields["due_at"], found.fields["id"]


def _due(row: Deployment | Delivery) -> tuple[float, str]:
    return (0.0 if row.due_at is None else row.due_at.timestamp()), row.id
