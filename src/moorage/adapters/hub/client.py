"""`ports.ModelHub` on `huggingface_hub`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

from moorage.adapters.hub.failures import RETRY_SECONDS, told
from moorage.adapters.hub.flights import Flights
from moorage.adapters.hub.profile import Limits, Reader
from moorage.adapters.hub.wire import Wire
from moorage.domain.model import HubModel, ModelProfile
from moorage.errors import HubUnavailable, ModelMissing, ModelUnreadable

__all__ = ["HuggingFaceHub", "Limits"]

MISSING_SECONDS = 3.0  # a typo asked for twice costs one request; a repository made just now is soon seen


class HuggingFaceHub:
    """Profiles of Hub repositories, kept for `ttl` seconds per repository, revision and token.

    `timeout` bounds one profile in seconds, `at_once` the requests under way. `monotonic` is the clock that
    the kept answers age by.
    """

    def __init__(
        self,
        url: str = "https://huggingface.co",
        *,
        timeout: float = 30.0,
        request_timeout: float = 10.0,
        ttl: float = 60.0,
        kept: int = 512,
        at_once: int = 8,
        limits: Limits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = Wire(url.rstrip("/"), timeout=min(request_timeout, timeout), at_once=at_once)
        self._timeout = timeout
        self._limits = limits or Limits()
        self._flights: Flights[ModelProfile] = Flights(
            monotonic,
            ttl=ttl,
            size=kept,
            error_ttl=lambda error: MISSING_SECONDS if isinstance(error, ModelMissing) else 0.0,
        )

    async def profile(self, model: HubModel, token: str | None) -> ModelProfile:
        """Reads metadata only, never weights. Raises a ModelError, or HubUnavailable."""
        owner = hashlib.sha256(token.encode()).hexdigest() if token else None

        async def fetch() -> ModelProfile:
            found = await self._fetch(model, token)
            self._flights.keep((model.repo_id, found.revision, owner), found)
            return found

        return await self._flights.get((model.repo_id, model.revision, owner), fetch)

    async def aclose(self) -> None:
        await self._flights.aclose()
        self._wire.close()

    async def _fetch(self, model: HubModel, token: str | None) -> ModelProfile:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._read(model, token)
        except TimeoutError as error:
            raise HubUnavailable(
                f"The model Hub did not answer within {self._timeout:g} seconds.",
                advice="Try again soon.",
                retry_after=RETRY_SECONDS,
            ) from error
        except Exception as error:
            # Whatever the library raises is told in our words; its own may hold URLs and headers.
            raise told(error, model, with_token=token is not None) from error

    async def _read(self, model: HubModel, token: str | None) -> ModelProfile:
        info = await self._wire.info(model.repo_id, model.revision, token)
        commit = info.sha or model.revision
        if commit is None:
            raise ModelUnreadable(f"{model.repo_id} has no commit yet.", advice="Upload a model to it first.")
        return await Reader(self._wire, info, commit, token, self._limits).profile()
