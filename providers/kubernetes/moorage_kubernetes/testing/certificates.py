"""The cluster's own authority: the server's certificate, and those of clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class KeyPair:
    """PEM texts."""

    certificate: str
    key: str


class Authority:
    """`expired` makes the server's certificate one of last year."""

    def __init__(self, host: str, *, expired: bool = False) -> None:
        self._ca = trustme.CA(organization_name="stand-in cluster")
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        self._server = self._ca.issue_cert(host, "localhost", not_after=until)

    @property
    def pem(self) -> str:
        return str(self._ca.cert_pem.bytes().decode())

    def client(self, common_name: str, *, expired: bool = False) -> KeyPair:
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        made = self._ca.issue_cert(
            f"{common_name}@cluster.local",
            common_name=common_name,
            organization_name="system:masters",
            not_after=until,
        )
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        return KeyPair(chain.decode(), made.private_key_pem.bytes().decode())

    def context(self) -> ssl.SSLContext:
        """For the server: asks for a client's certificate, and takes a connection without one."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server.configure_cert(context)
        self._ca.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


def common_name(certificate: bytes | None) -> str | None:
    """Whom a client's certificate (DER) names."""
    if not certificate:
        return None
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else None
