"""How an offer's id names a pool and a number of GPUs: `AMPERE_24`, `AMPERE_80:2`."""

from __future__ import annotations

from dataclasses import dataclass

from moorage.errors import Rejected


@dataclass(frozen=True, slots=True)
class PoolChoice:
    pool: str
    count: int = 1

    def __str__(self) -> str:
        return self.pool if self.count == 1 else f"{self.pool}:{self.count}"

    @classmethod
    def of(cls, offer_id: str) -> PoolChoice:
        """Raises Rejected for an id that is none of ours."""
        pool, colon, count = offer_id.partition(":")
        if not pool or (colon and not (count.isdecimal() and int(count) > 1)):
            raise Rejected(f"{offer_id!r} is no offer of RunPod's: expected POOL or POOL:COUNT")
        return cls(pool, int(count) if colon else 1)
