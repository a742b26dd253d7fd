"""A Kubernetes cluster on loopback, in memory: a real HTTPS server for tests of what speaks with clusters.

It exists because a provider is judged by how it fares when a cluster misbehaves, and no real one does so on
demand. It holds every object against the published schemas, and refuses what a real server refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import yaml
from aiohttp import web
from kubernetes_asyncio import client, config

from moorage_kubernetes.testing import nodes
from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.access import SERVICE_ACCOUNT, Access, Denial
from moorage_kubernetes.testing.app import App
from moorage_kubernetes.testing.certificates import Authority, KeyPair
from moorage_kubernetes.testing.controllers.autoscaling import Autoscaling
from moorage_kubernetes.testing.controllers.deployments import Deployments
from moorage_kubernetes.testing.controllers.garbage import Garbage, Namespaces
from moorage_kubernetes.testing.controllers.kubelet import Kubelet
from moorage_kubernetes.testing.controllers.manager import Manager
from moorage_kubernetes.testing.controllers.processes import Command, Start
from moorage_kubernetes.testing.controllers.quotas import Quotas
from moorage_kubernetes.testing.controllers.replica_sets import ReplicaSets
from moorage_kubernetes.testing.controllers.routes import Routes
from moorage_kubernetes.testing.controllers.scheduler import Scheduler
from moorage_kubernetes.testing.controllers.volumes import Volumes
from moorage_kubernetes.testing.credentials import kubeconfig
from moorage_kubernetes.testing.deletion import DeleteOptions, delete
from moorage_kubernetes.testing.faults import Faults
from moorage_kubernetes.testing.logs import Logs
from moorage_kubernetes.testing.proxy import Proxy
from moorage_kubernetes.testing.recorded import SeenRequest
from moorage_kubernetes.testing.resources import ADD_ONS, Resource
from moorage_kubernetes.testing.simulated import Answer, SimulatedPods
from moorage_kubernetes.testing.statuses import ApiError, Json
from moorage_kubernetes.testing.store import clone
from moorage_kubernetes.testing.watching import Watches
from moorage_kubernetes.testing.world import World

T = TypeVar("T")
USER = "moorage"


class StandInCluster:
    """`async with StandInCluster() as cluster:` serves the API on `cluster.url`.

    `version` is 1.34 to 1.36; `add_ons` are installed at the start (see `install`); `node` makes one node
    without accelerators. `ready_seconds` of real time until a simulated pod is ready; `speed` is how many
    seconds of the controllers' waits (back-off, minReadySeconds, cooldown) pass in one of ours. Leaving the
    context fails where the stand-in itself was at fault.
    """

    def __init__(
        self,
        *,
        version: str = "1.36",
        add_ons: Iterable[str] = tuple(ADD_ONS),
        node: bool = True,
        ready_seconds: float = 0.02,
        speed: float = 100.0,
        bookmark_seconds: float = 0.5,
        expired_certificate: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.world = World(version, speed)
        self.world.catalog.install(add_ons)
        self.token = secrets.token_urlsafe(24)
        self.access = Access({self.token: SERVICE_ACCOUNT}, {USER})
        self._host, self._port = host, port
        self._authority = Authority(host, expired=expired_certificate)
        self._pair: KeyPair | None = None
        self._with_node = node
        self._logs = Logs()
        self._pods = SimulatedPods(self.world.store)
        self._kubelet = Kubelet(self.world, self._logs, ready_seconds)
        self._proxy = Proxy(self.world.store, self._kubelet.address)
        self.watches = Watches(self.world.store, bookmark_seconds)
        self._app = App(self.world, self.access, self.watches, self._proxy, self._logs)
        self._kubelet.broken = self._app.records.broken
        self._manager = Manager(self.world.store, self._app.records.broken)
        self._autoscaling = Autoscaling(self.world, lambda key: self._again(self._autoscaling, key))
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    # -- how a client gets in -----------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"https://{self._host}:{self._port}"

    @property
    def ca(self) -> str:
        """PEM."""
        return self._authority.pem

    def client_pair(self, *, expired: bool = False) -> KeyPair:
        """A client's certificate and key."""
        if expired:
            return self._authority.client(USER, expired=True)
        if self._pair is None:
            self._pair = self._authority.client(USER)
        return self._pair

    def kubeconfig(self, *, client_certificate: bool = False) -> str:
        """YAML, with the token, or with a client's certificate."""
        if client_certificate:
            return kubeconfig(self.url, self.ca, pair=self.client_pair())
        return kubeconfig(self.url, self.ca, token=self.token)

    def values(self, **more: str) -> dict[str, str]:
        """The credential values of the provider `kubernetes`."""
        return {"server": self.url, "certificate_authority": self.ca, "token": self.token, **more}

    async def api_client(self) -> client.ApiClient:
        """For the typed APIs; the caller closes it."""
        return await config.new_client_from_config_dict(yaml.safe_load(self.kubeconfig()))

    # -- what is in it ------------------------------------------------------------------------------

    def add_node(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        cpu: float = 16,
        memory_gib: float = 64,
        gpus: int = 0,
        *,
        taints: Sequence[Mapping[str, str]] = (),
        pods: int = 110,
        ready: bool = True,
        unschedulable: bool = False,
    ) -> Json:
        """`taints` as the API has them. Raises ApiError for a node that a server refuses."""
        made = self.world.make(
            known.NODES, nodes.node(name, labels or {}, taints, unschedulable=unschedulable)
        )
        status = nodes.node_status(cpu, memory_gib, gpus, pods, ready)
        return self.world.set_status(known.NODES, made, status)

    def remove_node(self, name: str) -> None:
        """The node, and the pods on it."""
        for pod in self.objects("pods"):
            if pod["spec"].get("nodeName") == name:
                delete(self.world.objects, known.PODS, pod, DeleteOptions(grace=0))
        self.world.store.remove(known.NODES, self.object("nodes", name))

    def add_storage_class(
        self,
        name: str,
        access_modes: Iterable[str] = nodes.READ_WRITE_ONCE,
        *,
        provisioner: str = "csi.example.com",
        binding: str = "Immediate",
        default: bool = False,
    ) -> Json:
        """`access_modes` are those that its volumes can have; others fail to be provisioned."""
        wanted = nodes.storage_class(name, access_modes, provisioner, binding, default=default)
        return self.world.make(known.STORAGE_CLASSES, wanted)

    def add(self, value: Json) -> Json:
        """Any object, as `kubectl create` makes it. Raises ApiError."""
        return self.world.make(self._resource_of(value), value, manager="kubectl")

    def objects(self, plural: str, namespace: str | None = None) -> list[Json]:
        """Copies of all objects of a resource, by its plural or kind."""
        return [clone(value) for value in self.world.store.of(self.resource(plural), namespace)]

    def object(self, plural: str, name: str, namespace: str = "") -> Json:
        """A copy. Raises ApiError 404."""
        return clone(self.world.objects.get(self.resource(plural), namespace, name))

    def events(self, reason: str | None = None) -> list[Json]:
        return [one for one in self.objects("events") if reason in (None, one["reason"])]

    def install(self, *add_ons: str) -> None:
        """keda, gateway_api, envoy_gateway or metrics_server. Raises ValueError for another."""
        self.world.catalog.install(add_ons)

    def uninstall(self, *add_ons: str) -> None:
        """Takes the add-on away, with all of its objects."""
        for add_on in add_ons:
            for resource in ADD_ONS[add_on]:
                self.world.store.drop(resource)
            self.world.catalog.installed.discard(add_on)

    # -- what happens to it -------------------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        return self.world.faults

    def deny(self, verb: str, resource: str, namespace: str = "*") -> None:
        """Takes a permission away: patterns over a verb, `plural.group` and a namespace."""
        self.access.denials.append(Denial(verb, resource, namespace))

    def allow_all(self) -> None:
        self.access.denials.clear()

    def set_active(self, name: str, active: bool, namespace: str | None = None) -> None:
        """Whether the triggers of the scaled objects of this name are active."""
        self._autoscaling.set_active(name, active, namespace)

    def recommend(self, name: str, replicas: int, namespace: str | None = None) -> None:
        """What the metrics of the autoscaler of this name (HPA or scaled object) call for."""
        self._autoscaling.recommend(name, replicas, namespace)

    def run_pods_with(self, command: Callable[[Start], Command | None]) -> None:
        """From now on a container runs as the process that `command` names; simulated where that is None."""
        self._kubelet.command = command

    def answer_with(self, answer: Answer) -> None:
        """What simulated pods answer."""
        self._pods.answer = answer

    def drop_watches(self) -> None:
        """Cuts every watch in the middle."""
        self.watches.drop()

    def compact(self) -> None:
        """Watches from a revision before now are told 410."""
        self.world.store.compact()

    def expire_watches(self) -> None:
        """Ends every watch with 410, as a server that has compacted."""
        self.compact()
        message = "The resourceVersion for the provided watch is too old."
        self.watches.drop(ApiError(410, "Expired", message))

    async def go_down(self) -> None:
        """Connections are refused from now on; what runs goes on."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        self.watches.drop()
        if self._runner is not None and self._runner.server is not None:
            for connection in list(self._runner.server.connections):
                connection.force_close()

    async def come_up(self) -> None:
        """Serves at the same address again."""
        if self._site is None:
            await self._listen()

    # -- what a test asks ---------------------------------------------------------------------------

    @property
    def requests(self) -> list[SeenRequest]:
        return self._app.records.requests

    @property
    def refused(self) -> list[SeenRequest]:
        """The requests with objects that a schema or a rule does not allow."""
        return self._app.records.refused

    @property
    def broken(self) -> list[str]:
        """Faults of the stand-in itself."""
        return self._app.records.broken

    async def came(self, look: Callable[[], T | None], seconds: float = 10.0) -> T:
        """What `look` gives once it is true of the objects; looked at after each change.

        Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                moved = self.world.store.moved
                found = look()
                if found:
                    return found
                await moved.wait()

    def resource(self, plural: str) -> Resource:
        """Raises KeyError."""
        return self.world.catalog.named(plural)

    # -- running ------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._pods.start()
        self._kubelet.simulated_port = self._pods.port
        await self._proxy.start()
        self._runner = web.AppRunner(self._app.application(), access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await self._listen()
        self.world.address = f"{self._host}:{self._port}"
        self._furnish()
        deployments: Deployments = Deployments(self.world, lambda key: self._again(deployments, key))
        sets: ReplicaSets = ReplicaSets(self.world, lambda key: self._again(sets, key))
        world = self.world
        self._manager.start(
            [
                Namespaces(world),
                Garbage(world),
                deployments,
                sets,
                Volumes(world),
                Scheduler(world),
                self._kubelet,
                self._autoscaling,
                Quotas(world),
                Routes(world),
            ]
        )
        self.faults.on_change = self._manager.look_at_everything

    async def stop(self) -> None:
        """Returns when no process of a pod is left."""
        self.faults.on_change = lambda: None
        self.watches.close()
        await self._manager.stop()
        self.world.close()
        await self._kubelet.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._proxy.stop()
        await self._pods.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if kind is None and self.broken:
            raise AssertionError("\n".join(self.broken))

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(
            self._runner,
            self._host,
            self._port,
            ssl_context=self._authority.context(),
            reuse_address=True,
        )
        await self._site.start()
        if not self._port:
            self._port = self._runner.addresses[0][1]

    def _furnish(self) -> None:
        for name in ("default", "kube-system"):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.world.make(known.NAMESPACES, namespace)
        self.add_storage_class("standard", default=True)
        if self._with_node:
            self.add_node("node-1")

    def _again(self, controller: Deployments | ReplicaSets | Autoscaling, key: tuple[str, str]) -> None:
        with contextlib.suppress(ValueError):
            self._manager.look_at(controller, key)

    def _resource_of(self, value: Json) -> Resource:
        found = self.world.catalog.of_kind(value["apiVersion"], value["kind"])
        if found is None:
            raise KeyError(f"no resource is {value['apiVersion']}, Kind={value['kind']}")
        return found
