"""Tokens: whose are accepted, and that each refusal says which it is."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from moorage.adapters.tokens import JwtTokens
from moorage.domain.identity import Principal, Role
from moorage.errors import Unauthenticated

NOW = datetime(2026, 11, 21, 12, 0, 0, 500_000, UTC)
KEY, OTHER = b"k" * 32, b"o" * 32
WHO = Principal("usr_1", "org_1", Role.DEPLOYER)
CLAIMS = {
    "iss": "moorage",
    "sub": "usr_1",
    "org": "org_1",
    "role": "deployer",
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 60,
    "jti": "x",
}


def refusal(token: str, now: datetime = NOW) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as refused:
        JwtTokens([KEY]).read(token, now)
    return refused.value


def test_round_trip() -> None:
    tokens = JwtTokens([KEY], timedelta(hours=1))
    token, expires = tokens.issue(WHO, NOW)
    assert tokens.read(token, NOW) == (WHO, expires)
    assert expires - NOW <= timedelta(hours=1)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == set(CLAIMS)


def test_two_tokens_of_one_moment_differ() -> None:
    tokens = JwtTokens([KEY])
    assert tokens.issue(WHO, NOW)[0] != tokens.issue(WHO, NOW)[0]


def test_ends_to_the_second() -> None:
    tokens = JwtTokens([KEY], timedelta(hours=1))
    token, expires = tokens.issue(WHO, NOW)
    tokens.read(token, expires - timedelta(microseconds=1))
    assert refusal(token, expires).code == "token_expired"


def test_old_key_of_the_ring_still_opens_and_a_foreign_one_does_not() -> None:
    token, _ = JwtTokens([OTHER]).issue(WHO, NOW)
    assert JwtTokens([KEY, OTHER]).read(token, NOW)[0] == WHO
    foreign = refusal(token)
    assert foreign.code == "token_invalid"
    assert "signature is not ours" in foreign.detail


def test_algorithm_none_is_refused() -> None:
    token = jwt.encode(CLAIMS, "", algorithm="none")
    assert (refusal(token).code, "HS256" in refusal(token).detail) == ("token_invalid", True)


def test_stronger_algorithm_under_the_right_key_is_refused_too() -> None:
    assert refusal(jwt.encode(CLAIMS, KEY * 2, algorithm="HS512")).code == "token_invalid"


def test_changed_claims_are_refused() -> None:
    head, body, signature = JwtTokens([KEY]).issue(WHO, NOW)[0].split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["role"] = "owner"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert refusal(f"{head}.{forged}.{signature}").code == "token_invalid"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iss": "https://elsewhere.example"}, "somebody else"),
        ({"role": "root"}, "role is unknown"),
        ({"role": 1}, "role is no text"),
        ({"sub": ""}, "not a well-formed|sub is no text"),
        ({"org": None}, "org"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"iat": int(NOW.timestamp()) + 3600}, "in the future"),
    ],
)
def test_properly_signed_nonsense_is_refused(change: dict[str, object], words: str) -> None:
    refused = refusal(jwt.encode({**CLAIMS, **change}, KEY, algorithm="HS256"))
    assert refused.code == "token_invalid"
    with pytest.raises(Unauthenticated, match=words):
        raise refused


@pytest.mark.parametrize("claim", sorted(CLAIMS))
def test_every_claim_is_required(claim: str) -> None:
    token = jwt.encode({k: v for k, v in CLAIMS.items() if k != claim}, KEY, algorithm="HS256")
    assert refusal(token).code == "token_invalid"
    assert claim in refusal(token).detail


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "é.é.é", "a" * 5000, "\x00.\x00.\x00"])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refusal(token).code == "token_invalid"
