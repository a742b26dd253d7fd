"""The environment of a worker: what its work needs, and the marks by which its endpoint is known again. Pure.

No key of the account is ever among it: a worker does not speak to RunPod's API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moorage.domain.model import HubModel
from moorage.errors import FieldError, Rejected
from moorage.ports.provider import Callback, RevisionPlan, WorkerCache
from moorage_runpod.settings import PUBLIC_HUB, RunPodSettings

INSTALLATION = "MOORAGE_INSTALLATION"
WORKER_MODEL = "MOORAGE_WORKER_MODEL"
ENDPOINT_NAME = "MOORAGE_ENDPOINT_NAME"
WORKERS_MAX = "MOORAGE_WORKERS_MAX"
# What was asked for where the account's quota allowed less.
WORKERS_MAX_ASKED = "MOORAGE_WORKERS_MAX_ASKED"

PORT = 8000  # of our worker behind a load balancer
DEFAULT_PORT = 80  # where RunPod looks for anybody else's

_RESERVED = ("MOORAGE_", "RUNPOD_")


def refuse_reserved(env: Mapping[str, str]) -> None:
    """Raises Rejected with every name that is not the tenant's to set."""
    errors = [
        FieldError(f"env.{name}", "reserved_name", f"{name} is set by the platform")
        for name in env
        if name.startswith(_RESERVED)
    ]
    if errors:
        raise Rejected("; ".join(e.message for e in errors), fields=errors)


def worker_environment(
    plan: RevisionPlan, name: str, settings: RunPodSettings, *, balanced: bool
) -> dict[str, str]:
    """Without the marks of `marks`. An image of the owner's own gets the owner's variables and its token."""
    env = dict(plan.env)
    if plan.hub_token is not None:
        env["HF_TOKEN"] = plan.hub_token
    env[ENDPOINT_NAME] = name
    if isinstance(plan.source, HubModel):
        env.update(_of_model(plan, plan.source, settings, balanced=balanced))
        env.update(_of_callback(plan.callback))
        env.update(_of_cache(plan.cache))
    return env


def marks(settings: RunPodSettings, workers_max: int, allowed: int | None = None) -> dict[str, str]:
    """`allowed` is what the quota left of `workers_max`."""
    told = {INSTALLATION: settings.installation, WORKERS_MAX: str(allowed or workers_max)}
    if allowed is not None and allowed != workers_max:
        told[WORKERS_MAX_ASKED] = str(workers_max)
    return told


def exposed_ports(plan: RevisionPlan, *, balanced: bool) -> list[str]:
    if not balanced:
        return []
    if isinstance(plan.source, HubModel):
        return [f"{PORT}/http"]
    return [f"{plan.env.get('PORT') or DEFAULT_PORT}/http"]


def _of_model(
    plan: RevisionPlan, model: HubModel, settings: RunPodSettings, *, balanced: bool
) -> dict[str, str]:
    env = {
        WORKER_MODEL: model.repo_id,
        "MOORAGE_WORKER_MODEL_ID": model.repo_id,
        "MOORAGE_WORKER_ENGINE": plan.runtime,
        "MOORAGE_WORKER_FACE": "http" if balanced else "jobs",
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
    if balanced:
        env |= {"PORT": str(PORT), "PORT_HEALTH": str(PORT), "HEALTH_CHECK_PATH": "/ping"}
    return env


def _of_callback(callback: Callback | None) -> dict[str, str]:
    if callback is None:
        return {}
    return {"MOORAGE_CALLBACK_URL": callback.url, "MOORAGE_CALLBACK_SECRET": callback.secret}


def _of_cache(cache: WorkerCache | None) -> dict[str, str]:
    if cache is None:
        return {}
    env = {"MOORAGE_CACHE_SCOPE": cache.scope.value}
    if cache.scope == "shared":
        return env | {"MOORAGE_CACHE_MANIFEST_URL": cache.url}
    if cache.scope == "private":
        env["MOORAGE_CACHE_URL"] = cache.url
        env.update(
            _given(
                ("MOORAGE_CACHE_ACCESS_KEY_ID", cache.access_key_id),
                ("MOORAGE_CACHE_SECRET_ACCESS_KEY", cache.secret_access_key),
                ("MOORAGE_CACHE_ENDPOINT_URL", cache.endpoint_url),
            )
        )
    return env


def _given(*pairs: tuple[str, str | None]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in pairs if value is not None)
