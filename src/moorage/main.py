"""Puts the service together: the only module that knows which adapter serves which port."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import structlog

from moorage.adapters.control_metrics import ControlMetrics
from moorage.adapters.hub import HuggingFaceHub
from moorage.adapters.image_registry import HttpImageRegistry
from moorage.adapters.job_api import HttpJobApi
from moorage.adapters.measuring import measured_provider, measured_store
from moorage.adapters.outgoing import GuardedOutgoing
from moorage.adapters.outgoing_rules import AllowList
from moorage.adapters.passwords import Argon2Passwords
from moorage.adapters.registry import catalog
from moorage.adapters.system import SystemClock, SystemIds
from moorage.adapters.tokens import JwtTokens
from moorage.api.app import create_app
from moorage.api.context import Services
from moorage.api.internal import TICK, InternalFront
from moorage.api.requests import Requests
from moorage.configured import key_ring, shared_cache, shared_cache_policy
from moorage.credentials import Vault
from moorage.domain.decide import Patience
from moorage.domain.deployment import Deployment
from moorage.domain.identity import Principal
from moorage.domain.job import Job
from moorage.domain.notice import NewId
from moorage.domain.worker_callback import PURPOSE, endpoint_secret
from moorage.engine.census import Census
from moorage.engine.drive import Driver
from moorage.engine.effects import Effects
from moorage.engine.job_attempt import JobAttempt
from moorage.engine.job_runner import JobLimits, JobRunner
from moorage.engine.loop import Engine, EngineSettings
from moorage.engine.outbox import Outbox, OutboxLimits
from moorage.engine.recording import Recorder
from moorage.engine.sweeper import Sweeper
from moorage.engine.ticks import Ticks
from moorage.engine.watches import Watches
from moorage.engine.webhook_attempt import WebhookAttempt
from moorage.following import Following, Part, PublishedRoutes, wake_at_home
from moorage.gateway.asgi import App, RawHeaders
from moorage.gateway.job_replicas import JobReplicas
from moorage.gateway.limits import Limits
from moorage.gateway.proxy import Gateway
from moorage.gateway.routes import Route, RoutePublisher
from moorage.gateway.waking import Waker
from moorage.installed_providers import load_providers, machine_of
from moorage.observing import scrape, traces_of, watch_deployments, watch_engine
from moorage.open_store import open_store
from moorage.planning import Planner
from moorage.ports.outside import Clock, Outgoing
from moorage.ports.provider import Callback, Provider
from moorage.ports.store import Store
from moorage.ports.telemetry import Meters
from moorage.services.authentication import Authenticator
from moorage.services.changes import ChangeSurroundings, DeploymentChanges
from moorage.services.cluster_access import ClusterAccess
from moorage.services.clusters import ClusterSurroundings, ImportedClusters
from moorage.services.credentials import ProviderCredentials
from moorage.services.deployments import Deployments, Surroundings
from moorage.services.idempotency import Idempotency
from moorage.services.identity import Identity
from moorage.services.jobs import Jobs, JobSurroundings
from moorage.services.keys import ApiKeys
from moorage.services.models import Models, ModelSurroundings
from moorage.services.new_deployments import NewDeployments, PlacingSurroundings
from moorage.services.node_groups import NodeGroups
from moorage.services.prices import Prices
from moorage.services.readiness import Readiness
from moorage.services.webhooks import Webhooks
from moorage.services.worker_reports import WorkerReports
from moorage.settings import Settings
from moorage.signals import Signals
from moorage.upstream_auth import UpstreamAuth, UpstreamAuthenticator

log = structlog.get_logger(__name__)

EFFECT_SECONDS = 120.0  # for one call of a provider or the Hub
ATTEMPT_SECONDS = 20.0  # for a webhook receiver to answer
KEYS_SECONDS = 1.0  # between two times that keys are forgotten because others wrote
RESTART_SECONDS = 1.0  # before a background task that died of a bug is begun again


@dataclass(slots=True)
class Service:
    """A running service: `asgi` answers requests, the rest is for tests and tools in the same process."""

    asgi: App
    settings: Settings
    store: Store
    engine: Engine
    routes: RoutePublisher
    published: PublishedRoutes
    signals: Signals
    outbox: Outbox
    jobs: JobRunner
    watches: Watches
    clock: Clock
    new_id: NewId
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def applied(self, deployment: Deployment) -> None:
        """The engine stored a change: tell all who wait for it."""
        self.published.publish(deployment)
        self.signals.notify(deployment.id)
        if deployment.spec.webhook_url is not None:
            self.outbox.wake()

    def written(self, deployment_id: str) -> None:
        """A service stored what a user wants."""
        self.signals.notify(deployment_id)
        self.engine.wake()
        self.outbox.wake()

    def job_over(self, job: Job) -> None:
        self.signals.notify(job.id)
        self.jobs.interrupt(job.id)
        if job.webhook is not None:
            self.outbox.wake()

    async def wake_all(self) -> None:
        """Another process wrote: what it was about may be for anybody here."""
        self.signals.notify_all()
        self.engine.wake()
        self.watches.accounts_changed()
        self.outbox.wake()
        self.jobs.others_wrote()


@dataclass(frozen=True, slots=True)
class PublicLinks:
    """How workers reach this service: under the URL that the operator gave it. Without one they cannot."""

    public_url: str | None
    key: bytes
    shares_cache: bool

    def callback(self, endpoint: str) -> Callback | None:
        if self.public_url is None:
            return None
        url = f"{self.public_url}/v1/workers/{endpoint}/state"
        return Callback(url, endpoint_secret(self.key, endpoint))

    def shared_cache(self, endpoint: str) -> str | None:
        if self.public_url is None or not self.shares_cache:
            return None
        return f"{self.public_url}/v1/workers/{endpoint}/cache"


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    public_url: str,
    *,
    providers: dict[str, Provider] | None = None,
    outgoing: Outgoing | None = None,
) -> AsyncIterator[Service]:
    """The service with its background tasks, until the context ends. What runs at providers runs on."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    box = key_ring(settings)
    clock, new_id, signals = SystemClock(), SystemIds(), Signals()
    async with contextlib.AsyncExitStack() as stack:
        machine = machine_of(settings)
        metrics = ControlMetrics()
        traces = await stack.enter_async_context(traces_of(settings))
        recorder = Recorder(metrics, traces)
        store = measured_store(await open_store(settings.store_url, pool=settings.database_pool), metrics)
        stack.push_async_callback(store.aclose)
        guard = GuardedOutgoing(AllowList.parse(settings.outbound_allow))
        stack.push_async_callback(guard.aclose)
        if providers is None:
            providers = load_providers(settings, os.environ, guard.resolve)
        providers = {name: measured_provider(provider, metrics) for name, provider in providers.items()}
        for provider in providers.values():
            stack.push_async_callback(provider.aclose)
        hub = HuggingFaceHub(settings.hub_url)
        stack.push_async_callback(hub.aclose)
        outgoing = outgoing or guard
        passwords = Argon2Passwords()
        stack.callback(passwords.close)
        tokens = JwtTokens(box.derive("jwt"), timedelta(hours=settings.token_hours))
        planner = Planner(hub, providers, catalog(), clock)
        authenticator = Authenticator(store, tokens, clock, providers)
        vault = Vault(store, box, clock, providers)
        cache = shared_cache(settings, clock)
        if cache is not None:
            stack.push_async_callback(cache.aclose)
        links = PublicLinks(
            public_url if settings.public_url is not None else None,
            box.derive(PURPOSE)[0],
            cache is not None,
        )
        idempotency = Idempotency(store, box, clock)
        models = Models(
            ModelSurroundings(store, HttpImageRegistry(outgoing), hub, box, idempotency, clock, new_id)
        )
        credentials = ProviderCredentials(store, providers, vault, box, clock, new_id)
        attempt = WebhookAttempt(
            store, outgoing, box, clock, new_id, timeout=ATTEMPT_SECONDS, recorder=recorder
        )
        driver = Driver(
            store,
            Effects(providers, planner, box, vault, links),
            clock,
            new_id,
            public_url=public_url,
            patience=Patience(
                settings.ready_timeout_seconds, settings.loading_look_seconds, settings.ready_look_seconds
            ),
            effect_timeout=EFFECT_SECONDS,
            lease_seconds=settings.lease_seconds,
            machine=machine,
            on_applied=lambda deployment: service.applied(deployment),
            recorder=recorder,
        )
        engine = Engine(
            store, driver, clock, EngineSettings(lease_seconds=settings.lease_seconds, machine=machine)
        )
        watches = Watches(providers, vault, engine.signal)
        sweeper = Sweeper(
            store,
            providers,
            vault,
            clock,
            new_id,
            every=settings.sweep_seconds,
            grace=settings.sweep_grace_seconds,
        )
        outbox = Outbox(store, attempt, clock, OutboxLimits(lease=settings.lease_seconds))
        routes = RoutePublisher()
        upstream_auth = UpstreamAuthenticator(vault.open)

        async def open_auth(route: Route) -> UpstreamAuth:
            return await upstream_auth.auth(route.access, route.credential_id)

        waker = Waker(routes, lambda deployment_id: services.changes.wake(deployment_id))
        stack.push_async_callback(waker.aclose)
        replicas = JobReplicas(routes, open_auth, guard.resolve, waker)
        stack.push_async_callback(replicas.aclose)
        job_attempt = JobAttempt(
            store,
            replicas,
            clock,
            new_id,
            public_url=public_url,
            on_over=lambda job: service.job_over(job),
            meters=metrics,
        )
        jobs = JobRunner(store, replicas, job_attempt, clock, JobLimits(lease=settings.lease_seconds))
        job_api = HttpJobApi(guard.resolve)
        stack.push_async_callback(job_api.aclose)
        services = Services(
            new_deployments=NewDeployments(
                PlacingSurroundings(
                    store,
                    planner,
                    box,
                    outgoing,
                    clock,
                    new_id,
                    public_url,
                    lambda deployment_id: service.written(deployment_id),
                    credentials,
                    shared_cache_policy(settings),
                    models,
                    traces,
                )
            ),
            deployments=Deployments(
                Surroundings(
                    store,
                    providers,
                    clock,
                    new_id,
                    signals,
                    public_url,
                    lambda deployment_id: service.written(deployment_id),
                    vault,
                    machine,
                )
            ),
            changes=DeploymentChanges(
                ChangeSurroundings(
                    store,
                    box,
                    outgoing,
                    clock,
                    new_id,
                    public_url,
                    lambda deployment_id: service.written(deployment_id),
                )
            ),
            identity=Identity(store, box, passwords, tokens, clock, new_id),
            keys=ApiKeys(store, clock, new_id, authenticator.forget),
            authenticator=authenticator,
            webhooks=Webhooks(store, box, clock, new_id, outbox.wake),
            idempotency=idempotency,
            credentials=credentials,
            clusters=ImportedClusters(
                ClusterSurroundings(
                    store,
                    ClusterAccess(providers, clock),
                    vault,
                    box,
                    clock,
                    new_id,
                    idempotency,
                    catalog(),
                    watches.accounts_changed,
                )
            ),
            node_groups=NodeGroups(store, clock, new_id, idempotency),
            models=models,
            prices=Prices(store, planner, providers, credentials, vault, clock),
            worker_reports=WorkerReports(
                store,
                box,
                cache,
                clock,
                new_id,
                lambda deployment_id: service.written(deployment_id),
            ),
            jobs=Jobs(
                JobSurroundings(
                    store,
                    box,
                    upstream_auth,
                    job_api,
                    outgoing,
                    clock,
                    new_id,
                    uuid4,
                    signals,
                    public_url,
                    jobs.queued,
                    lambda job: service.job_over(job),
                )
            ),
        )
        census, readiness = Census(), Readiness(store, engine.pulse.trouble)
        stack.push_async_callback(readiness.aclose)
        api: App = create_app(services, readiness, max_body_bytes=settings.max_body_bytes)
        if settings.tick_token is not None:
            ticks = Ticks(store, clock, engine, outbox, jobs, sweeper, machine=machine)
            stack.push_async_callback(ticks.aclose)
            api = InternalFront(api, settings.tick_token.get_secret_value(), ticks.tick)
        api = Requests(api, metrics, traces, beside=(TICK,))
        gateway = Gateway(
            routes,
            gateway_authenticator(authenticator),
            api,
            limits=Limits(
                settings.max_infer_bytes, wake=settings.wake_seconds, answer=settings.infer_timeout_seconds
            ),
            auth=open_auth,
            resolve=guard.resolve,
            waker=waker,
            metrics=settings.metrics,
            more_metrics=scrape(metrics, readiness),
        )
        stack.push_async_callback(gateway.aclose)
        published = PublishedRoutes(store, routes, jobs.opened, census)
        service = Service(
            gateway, settings, store, engine, routes, published, signals, outbox, jobs, watches, clock, new_id
        )
        watch_engine(metrics, clock, engine, outbox, jobs)
        watch_deployments(metrics, clock, census)
        if settings.bootstrap_user and settings.bootstrap_password:
            password = settings.bootstrap_password.get_secret_value()
            await services.identity.bootstrap_owner(settings.bootstrap_user, password)
        await wake_at_home(store, await published.load(), machine, clock)

        async def forget_keys() -> None:
            authenticator.forget_all()
            vault.forget_all()

        async def load_routes() -> None:
            await published.load()

        parts = (
            Part("wakes", service.wake_all),
            Part("routes", load_routes),
            Part("keys", forget_keys, every=KEYS_SECONDS),
        )
        loops: dict[str, Callable[[], Awaitable[None]]] = {"changes": Following(store.changes, parts).run}
        if not settings.tick_only:
            loops |= {
                "engine": engine.run,
                "outbox": outbox.run,
                "jobs": jobs.run,
                "sweeper": sweeper.run,
                "watches": watches.run,
            }
        service.tasks = [
            asyncio.create_task(_kept_running(name, run, metrics), name=name) for name, run in loops.items()
        ]
        try:
            yield service
        finally:
            for task in service.tasks:
                task.cancel()
            await asyncio.gather(*service.tasks, return_exceptions=True)


def gateway_authenticator(
    authenticator: Authenticator,
) -> Callable[[RawHeaders], Principal | Awaitable[Principal]]:
    def authenticate(headers: RawHeaders) -> Principal | Awaitable[Principal]:
        for name, value in headers:
            if name == b"authorization":
                text = value.decode("latin-1")
                return authenticator.cached(text) or authenticator.authenticate_header(text)
        return authenticator.authenticate_header(None)

    return authenticate


async def _kept_running(name: str, run: Callable[[], Awaitable[None]], meters: Meters) -> None:
    """A background task that dies of a bug takes nothing with it: it is told, and begun again."""
    while True:
        try:
            await run()
        except Exception:
            meters.failed(name)
            log.exception("service.task_failed", task=name)
        await asyncio.sleep(RESTART_SECONDS)
