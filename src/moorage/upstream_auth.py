"""How a replica is authenticated to: the token and the TLS context that go with requests to it.

On a floor of its own, because the gateway asks replicas and the services ask providers' job APIs, and both
need the same. The values come from stored credentials; which of them, the provider says in `Access`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from moorage.domain.observation import Access
from moorage.errors import BadGateway, Unauthorized
from moorage.ports.provider import OPERATOR, Credentials

REMEMBERED = 1000  # TLS contexts, some 100 KiB each
_ADVICE = "Store a key that the provider accepts, and deploy again."


@dataclass(frozen=True, slots=True)
class UpstreamAuth:
    """What goes with every request. `tls` None: what the system believes, and nothing of ours is shown.
    `guarded`: a user named the host, and the guard decides whether it may be connected to."""

    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    guarded: bool = False

    def headers(self) -> dict[str, str]:
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}


NO_AUTH = UpstreamAuth()

_Pem = tuple[str | None, str | None, str | None]  # authority, certificate, key


class UpstreamAuthenticator:
    """Opens what `Access` names. `open_` opens a stored credential by its id, and raises Unauthorized.

    A TLS context takes milliseconds to make and its connections are kept open with it, so there is one for
    each set of certificates, made off the loop.
    """

    def __init__(self, open_: Callable[[str], Awaitable[Credentials]]) -> None:
        self._open = open_
        self._contexts: OrderedDict[_Pem, asyncio.Future[ssl.SSLContext]] = OrderedDict()

    async def auth(self, access: Access, credential_id: str | None) -> UpstreamAuth:
        """Raises BadGateway when the credential is gone, or lacks or spoils what is needed."""
        if not access.needs_credentials:
            return NO_AUTH
        try:
            values = (await self._open(credential_id or "")).values
        except Unauthorized as error:
            raise BadGateway(error.detail, code="provider_key_missing", advice=error.advice) from error
        token = _value(values, access.bearer)
        pem = (
            _value(values, access.authority),
            _value(values, access.certificate),
            _value(values, access.key),
        )
        if pem == (None, None, None):
            return UpstreamAuth(token)
        of_operator = credential_id is not None and credential_id.startswith(OPERATOR)
        return UpstreamAuth(token, await self._context(pem), guarded=not of_operator)

    async def _context(self, pem: _Pem) -> ssl.SSLContext:
        making = self._contexts.get(pem)
        if making is None:
            making = asyncio.ensure_future(asyncio.to_thread(tls_context, *pem))
            self._contexts[pem] = making
            if len(self._contexts) > REMEMBERED:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(pem)
        if making.done() and not making.cancelled() and making.exception() is None:
            return making.result()
        try:
            return await asyncio.shield(making)  # a request that is given up must not take it from the others
        except (ValueError, OSError) as error:
            self._contexts.pop(pem, None)
            raise BadGateway(
                "The certificates of the provider account of this deployment cannot be used.",
                code="provider_key_unusable",
                advice=_ADVICE,
            ) from error


def tls_context(authority: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """All PEM. Without `authority` those of the system are believed. Raises ValueError or OSError (ssl's
    errors are some) for what is no PEM, or a key of another certificate. Blocks."""
    context = ssl.create_default_context(cadata=authority)
    # Authorities that clusters make for themselves lack extensions which strict verification, the default
    # since Python 3.13, asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate is not None:
        _load_certificate(context, f"{certificate}\n{key or ''}")
    return context


def _load_certificate(context: ssl.SSLContext, pem: str) -> None:
    """`ssl` reads certificates from files only: this one is its owner's alone, and gone after the call."""
    with tempfile.NamedTemporaryFile("w", prefix="moorage-", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name, password=_no_password)


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # without this, OpenSSL would ask on the terminal


def _value(values: Mapping[str, str], name: str | None) -> str | None:
    if name is None:
        return None
    with contextlib.suppress(KeyError):
        return values[name]
    raise BadGateway(
        f"The provider account of this deployment has no value {name!r}.",
        code="provider_key_missing",
        advice=_ADVICE,
    )
