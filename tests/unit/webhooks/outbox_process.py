"""A process that only runs an outbox, so that a test can kill it: `outbox_process.py URL LEASE_SECONDS`."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import UTC, datetime

from moorage.adapters.outgoing import GuardedOutgoing
from moorage.adapters.outgoing_rules import AllowList
from moorage.adapters.secrets import KeyRing
from moorage.adapters.sql.store import SqlStore
from moorage.engine.outbox import Outbox, OutboxLimits
from moorage.engine.webhook_attempt import WebhookAttempt


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(13)}"


async def main(url: str, lease: float) -> None:
    store = await SqlStore.open(url)
    outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
    ring = KeyRing([("k1", bytes(range(32)))])
    attempt = WebhookAttempt(store, outgoing, ring, RealClock(), new_id, timeout=30)
    await Outbox(store, attempt, RealClock(), OutboxLimits(lease=lease)).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
