"""The test's own door to a fake that is another process: faults in, counts and requests out."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from moorage_runpod.testing.accounts import EVERYTHING, Account
from moorage_runpod.testing.catalog import LEVELS
from moorage_runpod.testing.cloud import Cloud
from moorage_runpod.testing.drift import drift

Json = Any  # JSON of a test


class Control:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/_fake/faults", self._faults),
            web.delete("/_fake/faults", self._clear),
            web.post("/_fake/accounts", self._account),
            web.post("/_fake/catalog", self._catalog),
            web.post("/_fake/drift", self._drift),
            web.get("/_fake/state", self._state),
            web.get("/_fake/requests", self._requests),
        ]

    async def _faults(self, request: web.Request) -> web.StreamResponse:
        """{"throttled_pools": ["AMPERE_24"], "routes": [{"route": …, "kind": "lost_answer"}], …}"""
        try:
            self._cloud.faults.update(await request.json())
        except (ValueError, TypeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.json_response({})

    async def _clear(self, _: web.Request) -> web.StreamResponse:
        self._cloud.faults.clear()
        return web.json_response({})

    async def _account(self, request: web.Request) -> web.StreamResponse:
        """{"name", "key", "scopes"?, "workers_quota"?}: adds the account, or a key to one that is there."""
        told: Json = await request.json()
        account = next((a for a in self._cloud.accounts if a.name == told["name"]), None)
        if account is None:
            account = Account(told["name"], {})
            self._cloud.accounts.append(account)
        account.keys[told["key"]] = frozenset(told.get("scopes", EVERYTHING))
        account.workers_quota = told.get("workers_quota", account.workers_quota)
        return web.json_response({})

    async def _catalog(self, request: web.Request) -> web.StreamResponse:
        """{"stock": {pool: level}, "prices": {pool: USD per GPU-hour}}"""
        told: Json = await request.json()
        catalog, stock, prices = self._cloud.catalog, told.get("stock", {}), told.get("prices", {})
        if not set(stock.values()) <= set(LEVELS) or not {*stock, *prices} <= catalog.pools:
            raise web.HTTPBadRequest(text=f"pools are {sorted(catalog.pools)}, levels are {LEVELS}")
        catalog.stock.update(stock)
        catalog.prices.update(prices)
        return web.json_response({})

    async def _drift(self, request: web.Request) -> web.StreamResponse:
        """{"endpoint": id or name, "workers_max": 0}"""
        told: Json = await request.json()
        changed = drift(self._cloud, told["endpoint"], told.get("workers_max", 0))
        return web.json_response({"changed": changed})

    async def _state(self, _: web.Request) -> web.StreamResponse:
        cloud = self._cloud
        crash_status = cloud.faults.crash_status
        endpoints = [
            {
                "id": e.id,
                "name": e.spec.name,
                "account": e.account.name,
                "workers": e.summary(crash_status),
                "jobs": e.queue.counts(),
            }
            for e in cloud.endpoints.values()
        ]
        return web.json_response(
            {
                "endpoints": endpoints,
                "creates": cloud.creates,
                "deletes": cloud.deletes,
                "running_workers": cloud.running_workers,
                "requests": len(cloud.records.requests),
                "invalid_requests": [r.as_json() for r in cloud.records.invalid],
                "broken_answers": cloud.records.broken_answers,
            }
        )

    async def _requests(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"requests": [r.as_json() for r in self._cloud.records.requests]})
