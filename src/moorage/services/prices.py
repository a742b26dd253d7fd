"""Money: what can be had now and for how much, and what a deployment has cost."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.credentials import Vault
from moorage.domain.compute import Bill
from moorage.domain.deployment import Deployment
from moorage.domain.identity import Permission, Principal
from moorage.domain.view import DeploymentCostView, MarketView, cost_view, market_view
from moorage.errors import NotFound, ProviderError
from moorage.planning import Planner
from moorage.ports.outside import Clock
from moorage.ports.provider import Billing, Provider
from moorage.ports.store import Store
from moorage.services.authorization import require
from moorage.services.credentials import ProviderCredentials


class Prices:
    def __init__(
        self,
        store: Store,
        planner: Planner,
        providers: Mapping[str, Provider],
        credentials: ProviderCredentials,
        vault: Vault,
        clock: Clock,
    ) -> None:
        self._store = store
        self._planner = planner
        self._providers = providers
        self._credentials = credentials
        self._vault = vault
        self._clock = clock

    async def market(self, principal: Principal) -> MarketView:
        """What every provider that the caller may use sells now, cheapest first; and who sells nothing, and
        why."""
        require(principal, Permission.READ)
        accounts = await self._credentials.of(principal)
        tenant_only = principal.account is not None
        market = await self._planner.market(accounts.all, own_accounts_only=tenant_only)
        return market_view(market.offers, market.refused)

    async def cost(self, principal: Principal, deployment_id: str) -> DeploymentCostView:
        """Measured here; and billed, where the provider tells it."""
        require(principal, Permission.READ)
        deployment = await self._store.deployment(deployment_id, principal.organization_id)
        if deployment is None:
            raise NotFound(f"There is no deployment {deployment_id!r}.", code="deployment_not_found")
        bill, unknown = await self._bill(deployment)
        return cost_view(deployment, bill, unknown, self._clock.now())

    async def _bill(self, deployment: Deployment) -> tuple[Bill | None, str | None]:
        """What the provider charged, or why that is not known."""
        attempt = deployment.status.attempt
        if attempt is None or attempt.handle is None:
            return None, "Nothing is created now."
        name = attempt.rung.offer.provider
        provider = self._providers.get(name)
        if not isinstance(provider, Billing):
            return None, f"{name} does not tell what it charged."
        try:
            id_ = deployment.account
            credentials = None if id_ is None else await self._vault.open(id_)
            return await provider.billed(attempt.handle, credentials, deployment.created_at), None
        except ProviderError as error:
            return None, f"{name} could not be asked: {error.detail}"
