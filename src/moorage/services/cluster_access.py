"""What an imported cluster is asked through: the provider that takes clusters, whichever it is.

Nothing here knows what a cluster is made of. The provider reads the access that a user gave, says whether it
opens anything, and reports what is there; here that becomes an answer to the user, by field, or a report that
says why there is nothing else to report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from moorage.domain.cluster import ClusterReport
from moorage.errors import (
    FieldError,
    Invalid,
    PermissionMissing,
    ProviderError,
    Rejected,
    Unauthorized,
    Unavailable,
)
from moorage.ports.outside import Clock
from moorage.ports.provider import Clusters, Credentials, Provider

CHECK_SECONDS = 30.0  # for a cluster to answer, and for it to be looked over
_DIRECT = ("server", "certificate_authority", "token")


class ClusterProvider(Provider, Clusters, Protocol):
    """A provider whose accounts are clusters."""


class ClusterAccess:
    def __init__(self, providers: Mapping[str, Provider], clock: Clock) -> None:
        self._providers = providers
        self._clock = clock

    def provider(self, name: str | None = None) -> ClusterProvider:
        """The one of that name, or the first that takes clusters. Raises Unavailable."""
        for provider in self._providers.values():
            if name in (None, provider.name) and isinstance(provider, Clusters):
                return provider
        raise Unavailable(
            f"No provider {name or 'that takes clusters'} is installed in this service.",
            code="no_cluster_provider",
            advice="Its operator can install one.",
        )

    def read(self, provider: ClusterProvider, given: Mapping[str, str]) -> Mapping[str, str]:
        """The values that open the cluster. Asks nobody. Raises Invalid by field."""
        direct = [name for name in _DIRECT if name in given]
        if ("kubeconfig" in given) == bool(direct):
            message = f"Give either kubeconfig, or {', '.join(_DIRECT[:-1])} and {_DIRECT[-1]}."
            names = ("kubeconfig", *direct) if direct else ("kubeconfig",)
            errors = [FieldError(f"body.{name}", "exactly_one_access", message) for name in names]
            raise Invalid(message, errors=errors)
        try:
            return provider.read_access(given)
        except Rejected as error:
            raise _invalid(error, given) from error

    async def problem(
        self, provider: ClusterProvider, credentials: Credentials, given: Mapping[str, str]
    ) -> str | None:
        """Why the cluster cannot be asked now, None where it can. Raises Invalid when it refuses what was
        given, or may not be connected to."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await provider.check_credentials(credentials)
        except Unauthorized as error:
            raise Invalid.at(
                "body.kubeconfig" if "kubeconfig" in given else "body.token",
                "accepted_by_cluster",
                error.detail,
                code="credential_refused",
                advice=error.advice,
            ) from error
        except Rejected as error:
            raise _invalid(error, given) from error
        except PermissionMissing:
            return None  # the report says what may not be done
        except ProviderError as error:
            return error.detail
        except TimeoutError:
            return _SILENT
        return None

    async def report(self, provider: ClusterProvider, credentials: Credentials) -> ClusterReport:
        """What a check finds; whatever stands in its way is the report's problem."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await provider.check(credentials)
        except ProviderError as error:
            return self.unreadable(error.detail)
        except TimeoutError:
            return self.unreadable(_SILENT)

    def unreadable(self, problem: str) -> ClusterReport:
        return ClusterReport(self._clock.now(), problem=problem)


_SILENT = f"The cluster did not answer within {CHECK_SECONDS:.0f} s."


def _invalid(error: Rejected, given: Mapping[str, str]) -> Invalid:
    field = "body.kubeconfig" if "kubeconfig" in given else "body.server"
    errors = error.fields or (FieldError(field, "usable", error.detail),)
    return Invalid(error.detail, errors=errors, advice=error.advice)
