"""The environment of a container: what its work needs, and which of it is secret. Pure.

Secret values go into a Secret of the endpoint and are referred to; the rest stands in the pod's template.
No credential of the cluster is ever among it: a worker does not speak to the API server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from moorage.domain.model import HubModel
from moorage.domain.workload import Workload
from moorage.errors import FieldError, Rejected
from moorage.ports.provider import Callback, RevisionPlan, WorkerCache
from moorage_kubernetes.autoscaling import QUEUE_URL_KEY
from moorage_kubernetes.settings import PUBLIC_HUB, KubernetesSettings
from moorage_kubernetes.tools import ClusterTools

PORT = 8000  # of our worker
GRACE_SECONDS = 60
QUEUE_GRACE_SECONDS = 120
MODELS = "/models"  # where our worker keeps weights

_RESERVED = "MOORAGE_"


@dataclass(frozen=True, slots=True)
class Environment:
    """By name. `secret` values are only ever written into a Secret."""

    plain: Mapping[str, str]
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)

    def entries(self, secret_name: str) -> list[dict[str, object]]:
        """As a container has it, by name; Kubernetes keeps the order, and a new order would be a new pod."""
        made: list[dict[str, object]] = [{"name": n, "value": v} for n, v in self.plain.items()]
        for name in self.secret:
            ref = {"name": secret_name, "key": name}
            made.append({"name": name, "valueFrom": {"secretKeyRef": ref}})
        return sorted(made, key=lambda entry: str(entry["name"]))


def environment_of(
    plan: RevisionPlan, name: str, settings: KubernetesSettings, tools: ClusterTools
) -> Environment:
    """Of the replicas. Raises Rejected for names that are not the owner's to set."""
    _refuse_reserved(plan.env)
    workload = plan.workload or Workload()
    # Without a workload nobody has said which are secret: then all are.
    hidden = set(plan.env) if plan.workload is None else set(workload.secret_env)
    plain = {n: v for n, v in plan.env.items() if n not in hidden}
    secret = {n: v for n, v in plan.env.items() if n in hidden}
    if plan.hub_token is not None:
        secret["HF_TOKEN"] = plan.hub_token
    plain["MOORAGE_ENDPOINT_NAME"] = name
    if isinstance(plan.source, HubModel):
        plain.update(_of_model(plan, plan.source, settings, queued=workload.queued is not None))
        _of_callback(plan.callback, plain, secret)
        _of_cache(plan.cache, plain, secret)
    else:
        plain.setdefault("PORT", str(http_port(plan)))
    if workload.queued is not None:
        plain |= {
            "MOORAGE_QUEUE_NAME": name,
            "MOORAGE_QUEUE_CONSUMERS": str(workload.queued.consumers),
            "MOORAGE_QUEUE_GRACE_SECONDS": str(grace_seconds(workload)),
        }
        secret |= queue_addresses(tools)
    for known in secret:
        plain.pop(known, None)
    return Environment(plain, secret)


def front_environment(name: str, tools: ClusterTools) -> Environment:
    """Of the front that fills the queue."""
    plain = {
        "MOORAGE_ENDPOINT_NAME": name,
        "MOORAGE_WORKER_FACE": "queue_front",
        "MOORAGE_QUEUE_NAME": name,
        "PORT": str(PORT),
    }
    return Environment(plain, queue_addresses(tools))


def queue_addresses(tools: ClusterTools) -> dict[str, str]:
    return {QUEUE_URL_KEY: tools.rabbitmq or "", "MOORAGE_RESULTS_URL": tools.redis or ""}


def http_port(plan: RevisionPlan) -> int:
    """Where requests go: as its owner said, or as the image is told by PORT."""
    if plan.workload is not None and plan.workload.ports is not None:
        return plan.workload.ports.http
    asked = plan.env.get("PORT", "")
    if not isinstance(plan.source, HubModel) and asked.isdecimal() and 0 < int(asked) < 65536:
        return int(asked)
    return PORT


def grace_seconds(workload: Workload) -> int:
    """From SIGTERM to SIGKILL."""
    if workload.grace_seconds is not None:
        return workload.grace_seconds
    return QUEUE_GRACE_SECONDS if workload.queued is not None else GRACE_SECONDS


def _refuse_reserved(env: Mapping[str, str]) -> None:
    errors = [
        FieldError(f"env.{name}", "reserved_name", f"{name} is set by the platform")
        for name in env
        if name.startswith(_RESERVED)
    ]
    if errors:
        raise Rejected("; ".join(e.message for e in errors), fields=errors)


def _of_model(
    plan: RevisionPlan, model: HubModel, settings: KubernetesSettings, *, queued: bool
) -> dict[str, str]:
    env = {
        "MOORAGE_WORKER_MODEL": model.repo_id,
        "MOORAGE_WORKER_MODEL_ID": model.repo_id,
        "MOORAGE_WORKER_ENGINE": plan.runtime,
        "MOORAGE_WORKER_FACE": "queue" if queued else "http",
        "HF_HOME": MODELS,
        "PORT": str(http_port(plan)),
    }
    env.update(
        _given(
            ("MOORAGE_WORKER_REVISION", model.revision),
            ("MOORAGE_WORKER_TASK", plan.task),
            ("MOORAGE_WORKER_DTYPE", plan.dtype),
            ("MOORAGE_WORKER_VARIANT", plan.variant),
            ("HF_ENDPOINT", settings.hub_url if settings.hub_url != PUBLIC_HUB else None),
        )
    )
    return env


def _of_callback(callback: Callback | None, plain: dict[str, str], secret: dict[str, str]) -> None:
    if callback is not None:
        plain["MOORAGE_CALLBACK_URL"] = callback.url
        secret["MOORAGE_CALLBACK_SECRET"] = callback.secret


def _of_cache(cache: WorkerCache | None, plain: dict[str, str], secret: dict[str, str]) -> None:
    if cache is None:
        return
    plain["MOORAGE_CACHE_SCOPE"] = cache.scope.value
    if cache.scope == "shared":
        plain["MOORAGE_CACHE_MANIFEST_URL"] = cache.url
    if cache.scope == "private":
        plain["MOORAGE_CACHE_URL"] = cache.url
        plain.update(_given(("MOORAGE_CACHE_ENDPOINT_URL", cache.endpoint_url)))
        secret.update(
            _given(
                ("MOORAGE_CACHE_ACCESS_KEY_ID", cache.access_key_id),
                ("MOORAGE_CACHE_SECRET_ACCESS_KEY", cache.secret_access_key),
            )
        )


def _given(*pairs: tuple[str, str | None]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in pairs if value is not None)
