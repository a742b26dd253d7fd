"""Whether certificates and keys that a user gave can be used, told before anything is connected to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

MAX_CERTIFICATES = 200
AUTHORITY_ADVICE = "Give the PEM of the cluster's certificate authority, as its kubeconfig has it."
PAIR_ADVICE = "Give a certificate and its own key, not encrypted, or a token instead."


@dataclass(frozen=True, slots=True)
class Problem:
    field: str
    rule: str
    message: str
    advice: str


def authority_problem(pem: str, now: datetime) -> Problem | None:
    """Of an authority; none at all is none: the server's certificate may be a public one."""
    if not pem:
        return None
    found = _certificates(pem)
    field = "certificate_authority"
    if not found:
        return Problem(field, "pem", "The certificate authority is no PEM certificate.", AUTHORITY_ADVICE)
    if all(each.not_valid_after_utc <= now for each in found):
        ended = max(each.not_valid_after_utc for each in found).date()
        return Problem(field, "expired", f"The certificate authority expired on {ended}.", AUTHORITY_ADVICE)
    return None


def pair_problem(certificate: str, key: str, now: datetime) -> Problem | None:
    """Of a client's certificate and its key."""
    found = _certificates(certificate)
    if not found:
        message = "The client certificate is no PEM certificate."
        return Problem("client_certificate", "pem", message, PAIR_ADVICE)
    first = found[0]
    if first.not_valid_after_utc <= now:
        message = f"The client certificate expired on {first.not_valid_after_utc.date()}."
        return Problem("client_certificate", "expired", message, PAIR_ADVICE)
    try:
        public = load_pem_private_key(key.encode(), None).public_key()
    except (ValueError, TypeError):
        message = "The client key is no PEM key that can be read without a password."
        return Problem("client_key", "pem", message, PAIR_ADVICE)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != first.public_key().public_bytes(*form):
        message = "The client key does not belong to the client certificate."
        return Problem("client_key", "key_of_certificate", message, PAIR_ADVICE)
    return None


def _certificates(pem: str) -> list[x509.Certificate]:
    """None where a part of it cannot be read."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return []
    return found if len(found) <= MAX_CERTIFICATES else []
