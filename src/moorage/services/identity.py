"""Users: the first owner, and signing in with a password.

Whether a user exists is not to be learned here: the answer to a wrong name and to a wrong password is the
same and takes as long. Guessing is slowed down by user name and by client address.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from moorage.domain.delivery import WebhookSecret
from moorage.domain.failure_window import FailureWindow
from moorage.domain.identity import Organization, Principal, Role, User
from moorage.domain.notice import NewId
from moorage.domain.webhook_signature import SECRET_BYTES, new_secret, seal_context
from moorage.errors import AlreadyExists, TooManyRequests, Unauthenticated
from moorage.ports.outside import Clock, SecretBox
from moorage.ports.store import Insert, Store

log = structlog.get_logger(__name__)

LONGEST_PASSWORD = 1024  # characters; more is refused unhashed
PER_USERNAME = FailureWindow(allowed=10, length=timedelta(minutes=15))
PER_ADDRESS = FailureWindow(allowed=30, length=timedelta(minutes=15))
REMEMBERED = 10_000  # user names, and as many addresses


class Passwords(Protocol):
    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, hash_: str | None) -> bool:
        """Whether they belong together. For None the answer is no, and takes as long as any other."""


class Tokens(Protocol):
    def issue(self, principal: Principal, now: datetime) -> tuple[str, datetime]:
        """A token, and when it ends."""

    def read(self, token: str, now: datetime) -> tuple[Principal, datetime]:
        """Who it was issued to, and when it ends. Raises Unauthenticated."""


class Failures:
    """Counts failures under names, for the newest `remembered` names."""

    def __init__(self, window: FailureWindow, remembered: int = REMEMBERED) -> None:
        self._window = window
        self._remembered = remembered
        self._by_name: OrderedDict[str, tuple[datetime, ...]] = OrderedDict()

    def wait(self, name: str, now: datetime) -> float | None:
        return self._window.wait(self._by_name.get(name, ()), now)

    def add(self, name: str, now: datetime) -> None:
        self._by_name[name] = self._window.with_failure(self._by_name.get(name, ()), now)
        self._by_name.move_to_end(name)
        if len(self._by_name) > self._remembered:
            self._by_name.popitem(last=False)

    def take_back(self, name: str, moment: datetime) -> None:
        """It was no failure after all."""
        left = list(self._by_name.get(name, ()))
        if moment in left:
            left.remove(moment)
            self._by_name[name] = tuple(left)

    def forget(self, name: str) -> None:
        self._by_name.pop(name, None)

    def __len__(self) -> int:
        return len(self._by_name)


@dataclass(frozen=True, slots=True)
class SignedIn:
    token: str
    expires_at: datetime
    principal: Principal


class Identity:
    """What is done about users. Of several processes, each counts the failed sign-ins that it saw."""

    def __init__(
        self,
        store: Store,
        box: SecretBox,
        passwords: Passwords,
        tokens: Tokens,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._store = store
        self._box = box
        self._passwords = passwords
        self._tokens = tokens
        self._clock = clock
        self._new_id = new_id
        self._by_username = Failures(PER_USERNAME)
        self._by_address = Failures(PER_ADDRESS)

    async def bootstrap_owner(self, username: str, password: str, organization: str = "default") -> None:
        """The first owner and the organization, unless the user exists. May be repeated and raced: the unique
        user name lets one unit win. The password of an existing user is left as it is."""
        username = username.strip().lower()
        if not username or not password:
            raise ValueError("the bootstrap owner needs a user name and a password")
        if await self._store.user_named(username) is not None:
            return
        now = self._clock.now()
        org_id = self._new_id("org")
        hash_ = await self._passwords.hash(password)
        webhook_secret = new_secret(secrets.token_bytes(SECRET_BYTES)).encode()
        try:
            await self._store.commit(
                [
                    Insert(Organization(org_id, organization, now)),
                    Insert(User(self._new_id("usr"), org_id, username, hash_, Role.OWNER, now)),
                    Insert(WebhookSecret(org_id, self._box.seal(webhook_secret, seal_context(org_id)), now)),
                ]
            )
        except AlreadyExists:
            return  # another process was first, with the same user
        log.info("identity.owner_created", organization=org_id, username=username)

    async def sign_in(self, username: str, password: str, address: str) -> SignedIn:
        """`address` is the client's. Raises Unauthenticated `wrong_credentials`, or TooManyRequests."""
        username = username.strip().lower()[:256]
        now = self._clock.now()
        self._refuse_guessing(username, address, now)
        # Counted before the slow check, so that a burst of guesses at once is not let through as a whole.
        self._by_username.add(username, now)
        self._by_address.add(address, now)
        user = await self._store.user_named(username)
        fits = len(password) <= LONGEST_PASSWORD
        right = await self._passwords.verify(password if fits else "", user.password_hash if user else None)
        if user is None or not fits or not right:
            log.info("identity.sign_in_failed", address=address)
            raise Unauthenticated("The user name or the password is wrong.", code="wrong_credentials")
        self._by_username.forget(username)
        self._by_address.take_back(address, now)
        principal = Principal(user.id, user.organization_id, user.role)
        token, expires = self._tokens.issue(principal, self._clock.now())
        return SignedIn(token, expires, principal)

    def _refuse_guessing(self, username: str, address: str, now: datetime) -> None:
        waits = (self._by_username.wait(username, now), self._by_address.wait(address, now))
        wait = max((seconds for seconds in waits if seconds is not None), default=None)
        if wait is not None:
            raise TooManyRequests(
                "Too many failed sign-ins.",
                code="too_many_failed_sign_ins",
                advice="Wait before the next try, or use an API key.",
                retry_after=wait,
            )
