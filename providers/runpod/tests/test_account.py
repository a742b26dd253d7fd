"""Keys, permissions, quotas and rate limits of the account, and that its key is seen by nobody else."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from moorage.domain.compute import Availability, Serverless
from moorage.errors import PermissionMissing, QuotaExceeded, Retry, Unauthorized
from moorage.ports.provider import Credentials
from moorage.testing.provider_contract import need, until_absent
from moorage_runpod.testing import KEY, Account, Kind

from .conftest import CREDENTIALS, House
from .looking import until_ready
from .plans import plan

LIST, CREATE, CATALOG = "GET /v2/serverless", "POST /v2/serverless", "GET /v2/catalog/gpus"
STRANGER = Credentials({"api_key": "rpa_NOBODYKNOWSTHISKEY"})


class TestKeys:
    async def test_a_key_is_recognised_by_its_form_alone(self, house: House) -> None:
        provider = house.provider()
        assert provider.credentials_of(KEY) == CREDENTIALS
        assert provider.credentials_of("mrg_0123456789") is None
        assert house.fake.requests == []

    async def test_a_good_key_stands_for_an_account(self, house: House) -> None:
        account = await house.provider().check_credentials(CREDENTIALS)
        assert account.id.startswith("runpod-")
        assert KEY not in repr(account)
        assert [r.name for r in house.fake.requests] == [LIST]
        assert house.fake.requests[0].headers["User-Agent"].startswith("moorage-runpod/")

    async def test_a_refused_key_is_not_a_missing_permission(self, house: House) -> None:
        provider = house.provider()
        with pytest.raises(Unauthorized) as refused:
            await provider.check_credentials(STRANGER)
        assert "read and write" in (refused.value.advice or "")
        house.fake.faults.denied_scopes = frozenset({"serverless:read"})
        with pytest.raises(PermissionMissing) as missing:
            await provider.check_credentials(CREDENTIALS)
        assert "access denied" in missing.value.detail

    async def test_a_key_that_may_only_read_cannot_create(self, house: House, name: str) -> None:
        house.fake.faults.denied_scopes = frozenset({"serverless:write"})
        with pytest.raises(PermissionMissing):
            await house.provider().create(plan(), name, CREDENTIALS)
        assert house.names() == []

    async def test_no_key_is_told_with_advice_and_asks_nobody(self, house: House, name: str) -> None:
        provider = house.provider()
        for call in (
            provider.check_credentials(None),
            provider.offers(need(1), None),
            provider.create(plan(), name, None),
        ):
            with pytest.raises(Unauthorized) as raised:
                await call
            assert raised.value.advice
        assert house.fake.requests == []

    async def test_another_accounts_endpoints_are_not_there(self, house: House, name: str) -> None:
        house.fake.accounts.append(Account("other", {"rpa_OTHER": frozenset({"*"})}))
        handle = await house.provider().create(plan(), name, CREDENTIALS)
        other = Credentials({"api_key": "rpa_OTHER"})
        provider = house.provider()
        assert await provider.find(name, other) is None
        assert [h async for h in provider.owned(other)] == []
        await provider.delete(handle, other)
        assert house.names() == [name]


class TestOffers:
    async def test_live_price_and_stock(self, house: House) -> None:
        house.fake.catalog.stock["ADA_24"] = "NONE"
        offers = {o.id: o for o in await house.provider().offers(need(1), CREDENTIALS)}
        assert offers["ADA_24"].availability is Availability.NONE
        assert offers["AMPERE_24"].price_per_hour == 0.69
        [sent] = house.fake.sent(CATALOG)
        assert sent.query == {"include": "AVAILABILITY", "product": "SERVERLESS"}

    async def test_they_are_read_once_for_all_who_ask(self, house: House) -> None:
        provider = house.provider()
        await asyncio.gather(*(provider.offers(need(size), CREDENTIALS) for size in (1, 10, 100)))
        await provider.offers(need(1), CREDENTIALS)
        assert len(house.fake.sent(CATALOG)) == 1

    @pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.HTML, Kind.TRUNCATED, Kind.RATE_LIMITED])
    async def test_a_silent_catalog_leaves_the_registry(self, house: House, kind: Kind) -> None:
        house.fake.faults.arm(CATALOG, kind)
        offers = await house.provider().offers(need(1), CREDENTIALS)
        assert offers
        assert all("could not be asked" in (o.note or "") for o in offers)

    async def test_a_refused_key_has_no_offers(self, house: House) -> None:
        with pytest.raises(Unauthorized):
            await house.provider().offers(need(1), STRANGER)


class TestQuota:
    async def test_it_lowers_workers_max(self, house: House, name: str) -> None:
        house.fake.faults.workers_quota = 2
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        [endpoint] = house.fake.endpoints
        assert endpoint.spec.workers_max == 2
        seen, handle = await until_ready(provider, handle)
        assert seen.drift is None
        await provider.apply(handle, plan(), CREDENTIALS)
        assert house.fake.sent("PATCH /v2/serverless/{id}") == []

    async def test_a_change_is_lowered_too(self, house: House, name: str) -> None:
        house.fake.faults.workers_quota = 4
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        more = plan(serverless=Serverless(workers_max=9))
        await provider.apply(handle, more, CREDENTIALS)
        assert house.fake.endpoints[0].spec.workers_max == 4
        patches = len(house.fake.sent("PATCH /v2/serverless/{id}"))
        await provider.apply(handle, more, CREDENTIALS)
        assert len(house.fake.sent("PATCH /v2/serverless/{id}")) == patches

    @pytest.mark.parametrize(("quota", "wish"), [(0, Serverless()), (2, Serverless(workers_min=3))])
    async def test_too_little_fails_clearly(
        self, house: House, name: str, quota: int, wish: Serverless
    ) -> None:
        house.fake.faults.workers_quota = quota
        with pytest.raises(QuotaExceeded) as raised:
            await house.provider().create(plan(serverless=wish), name, CREDENTIALS)
        assert raised.value.limit == quota
        assert "workers quota" in raised.value.detail
        assert "workers_max" in (raised.value.advice or "")
        assert house.names() == []


class TestRateLimits:
    async def test_retry_after_is_passed_on_and_kept(self, house: House, name: str) -> None:
        house.fake.faults.arm(CREATE, Kind.RATE_LIMITED, seconds=7)
        provider = house.provider()
        with pytest.raises(Retry) as raised:
            await provider.create(plan(), name, CREDENTIALS)
        assert raised.value.after == 7
        before = len(house.fake.requests)
        with pytest.raises(Retry, match="used up") as again:
            await provider.find(name, CREDENTIALS)
        assert 0 < again.value.after <= 7
        assert len(house.fake.requests) == before

    async def test_nothing_is_sent_while_a_window_is_used_up(self, house: House, name: str) -> None:
        account = house.fake.accounts[0]
        account.limits = {**account.limits, "hour": 2}
        account.used.clear()
        provider = house.provider()
        for _ in range(2):
            assert await provider.find(name, CREDENTIALS) is None
        with pytest.raises(Retry) as raised:
            await provider.find(name, CREDENTIALS)
        assert 0 < raised.value.after <= 3600
        assert [r.status for r in house.fake.requests] == [200, 200]
        account.limits = {**account.limits, "hour": 10**6}

    async def test_other_accounts_go_on(self, house: House, name: str) -> None:
        house.fake.accounts.append(Account("other", {"rpa_OTHER": frozenset({"*"})}))
        house.fake.faults.arm(LIST, Kind.RATE_LIMITED, seconds=30)
        provider = house.provider()
        with pytest.raises(Retry):
            await provider.find(name, CREDENTIALS)
        assert await provider.find(name, Credentials({"api_key": "rpa_OTHER"})) is None


class TestSecrets:
    async def test_the_key_is_in_no_log_error_repr_or_environment(
        self, house: House, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        seen, handle = await until_ready(provider, handle)
        told = [
            repr(provider),
            repr(provider._settings),
            repr(provider._api(CREDENTIALS)),
            repr(handle),
            repr(seen),
        ]
        for kind in Kind:
            house.fake.faults.arm("GET /v2/serverless/{id}", kind, seconds=0.01)
            try:
                await provider.observe(handle, CREDENTIALS)
            except Retry as error:
                told += _whole_story(error)
            if kind is Kind.RATE_LIMITED:
                provider = house.provider()
        told += [str(e.spec.env) for e in house.fake.endpoints]
        told += [str(r.body) + r.path + str(dict(r.query)) for r in house.fake.requests]
        told.append(caplog.text)
        assert told
        assert [text for text in told if KEY in text] == []
        await until_absent(provider, handle, CREDENTIALS, 10)

    async def test_an_answer_that_holds_the_key_is_cleaned(self, house: House, name: str) -> None:
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        [endpoint] = house.fake.endpoints
        endpoint.spec = replace(endpoint.spec, name=f"named-{KEY}")
        found, _ = await provider._api(CREDENTIALS).endpoint(handle.ref["id"])
        assert found.name == "named-[key]"
        endpoint.spec = replace(endpoint.spec, name=name)


def _whole_story(error: BaseException | None) -> list[str]:
    """An error with all that it was raised from, as a traceback would print it."""
    told = []
    while error is not None:
        told += [repr(error), str(error), str(vars(error))]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told
