"""Signed tokens that a user gets for a password: JWT, HS256, under keys derived from the key ring.

Time is passed in rather than read by the library, so that a token's end is a rule like any other and can be
tested. The algorithm is fixed here; a token does not choose how it is checked.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import jwt

from moorage.domain.identity import Principal, Role
from moorage.errors import Unauthenticated

ISSUER = "moorage"
ALGORITHM = "HS256"
LIFETIME = timedelta(hours=12)
SKEW = timedelta(seconds=30)  # between the clocks of two processes
_CLAIMS = ("iss", "sub", "org", "role", "iat", "exp", "jti")


class JwtTokens:
    """A `Tokens` of the identity service. The first key signs, all are accepted."""

    def __init__(self, keys: Sequence[bytes], lifetime: timedelta = LIFETIME) -> None:
        if not keys:
            raise ValueError("tokens need at least one key")
        self._keys = tuple(keys)
        self._lifetime = lifetime

    def issue(self, principal: Principal, now: datetime) -> tuple[str, datetime]:
        """The token, and when it ends (whole seconds)."""
        expires = datetime.fromtimestamp(int((now + self._lifetime).timestamp()), UTC)
        claims = {
            "iss": ISSUER,
            "sub": principal.id,
            "org": principal.organization_id,
            "role": principal.role.value,
            "iat": int(now.timestamp()),
            "exp": int(expires.timestamp()),
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self._keys[0], algorithm=ALGORITHM), expires

    def read(self, token: str, now: datetime) -> tuple[Principal, datetime]:
        """Who it was issued to, and when it ends. Raises Unauthenticated, `token_expired` or
        `token_invalid`."""
        claims = self._verified(token)
        issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
        if now >= expires:
            raise Unauthenticated(
                "the token has expired", code="token_expired", advice="Get a new one from POST /auth/token."
            )
        if issued > now + SKEW:
            raise _invalid("it was issued in the future")
        subject, organization, role = (_text(claims, name) for name in ("sub", "org", "role"))
        try:
            return Principal(subject, organization, Role(role)), expires
        except ValueError:
            raise _invalid("its role is unknown") from None

    def _verified(self, token: str) -> Mapping[str, object]:
        options: jwt.types.Options = {
            "require": list(_CLAIMS),
            "verify_exp": False,  # judged in `read`, by the time passed in
            "verify_iat": False,
            "verify_nbf": False,
            "verify_aud": False,
        }
        for key in self._keys:
            try:
                return jwt.decode(token, key, algorithms=[ALGORITHM], issuer=ISSUER, options=options)
            except jwt.InvalidSignatureError:
                continue  # another key of the ring may have signed it
            except jwt.InvalidAlgorithmError:
                raise _invalid(f"it is not signed with {ALGORITHM}") from None
            except jwt.InvalidIssuerError:
                raise _invalid("it was issued by somebody else") from None
            except jwt.MissingRequiredClaimError as error:
                raise _invalid(f"it lacks the claim {error.claim}") from None
            except (jwt.InvalidTokenError, RecursionError):
                raise _invalid("it is not a well-formed token") from None
        raise _invalid("its signature is not ours")


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(
        f"the token is refused: {why}",
        code="token_invalid",
        advice="Get a new one from POST /auth/token, or use an API key.",
    )


def _moment(claims: Mapping[str, object], name: str) -> datetime:
    value = claims[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise _invalid(f"its claim {name} is no time")
    return datetime.fromtimestamp(value, UTC)


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise _invalid(f"its claim {name} is no text")
    return value
