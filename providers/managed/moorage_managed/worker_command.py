"""From a plan to the worker's command line and environment: what a tenant may decide, and what not. Pure.

The tenant's variables come first and the provider's own last. Names that steer the loader, the interpreter or
Moorage itself are refused: on this machine they would let a tenant run code of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from moorage.domain.model import HubModel
from moorage.errors import FieldError, Rejected
from moorage.ports.provider import RevisionPlan
from moorage_managed.settings import LocalSettings
from moorage_managed.spec import EndpointSpec

GIB = 1024**3
HOST_BYTES_BESIDE_GPU = 4 * GIB  # main memory of a replica whose weights are on a GPU
LIMIT_FACTOR = 1.25
LIMIT_EXTRA = GIB // 2

_REFUSED_PREFIXES = ("MOORAGE_", "LD_", "DYLD_", "PYTHON", "GCONV_", "CUDA_VISIBLE")
_REFUSED = frozenset(
    {
        "PATH",
        "HOME",
        "TMPDIR",
        "SHELL",
        "IFS",
        "BASH_ENV",
        "ENV",
        "LOCPATH",
        "NLSPATH",
        "HF_ENDPOINT",
        "HF_HOME",
    }
)
# Of the service's own environment, only what a program needs to start.
_PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


def refuse_unsafe(plan: RevisionPlan) -> None:
    """Raises Rejected with every field at fault."""
    errors = []
    if not isinstance(plan.source, HubModel):
        errors.append(
            FieldError("source", "unsupported", "this provider serves models of the Hugging Face Hub only")
        )
    for name in plan.env:
        if name in _REFUSED or name.startswith(_REFUSED_PREFIXES):
            errors.append(FieldError(f"env.{name}", "reserved_name", f"{name} is the provider's to set"))
        elif not name or "=" in name or "\0" in name + plan.env[name]:
            errors.append(FieldError(f"env.{name}", "malformed", "no '=' in the name and no NUL anywhere"))
    if errors:
        raise Rejected("; ".join(e.message for e in errors), fields=errors)


def endpoint_spec(
    plan: RevisionPlan,
    name: str,
    settings: LocalSettings,
    *,
    service_env: Mapping[str, str],
    tasks: tuple[str, ...],
    gpu: str | None,
) -> EndpointSpec:
    """`tasks` are those the worker knows by name; another task is left for it to find out.

    The memory limit is the reservation times 1.25 and half a GiB: estimates are of the model, and the
    runtime's own spikes are not worth a kill.
    """
    host_bytes = plan.memory_bytes if gpu is None else min(plan.memory_bytes, HOST_BYTES_BESIDE_GPU)
    return EndpointSpec(
        name=name,
        offer_id=plan.offer.id,
        replicas=plan.replicas,
        command=_command(plan, settings, tasks),
        memory_bytes=host_bytes,
        memory_limit=int(host_bytes * LIMIT_FACTOR) + LIMIT_EXTRA,
        cpus=settings.cpus,
        gpu=gpu,
        gpu_bytes=0 if gpu is None else plan.memory_bytes,
        env=_environment(plan, settings, service_env, gpu),
        timings=settings.timings,
        host=settings.host,
    )


def _command(plan: RevisionPlan, settings: LocalSettings, tasks: tuple[str, ...]) -> tuple[str, ...]:
    assert isinstance(plan.source, HubModel)  # `refuse_unsafe` came first
    command = [*settings.worker_command, "--model", plan.source.repo_id, "--engine", plan.runtime]
    if plan.source.revision is not None:
        command += ["--revision", plan.source.revision]
    if plan.task in tasks:
        command += ["--task", str(plan.task)]
    return (*command, "--host", settings.host, "--cache-dir", str(settings.cache_dir))


def _environment(
    plan: RevisionPlan, settings: LocalSettings, service_env: Mapping[str, str], gpu: str | None
) -> dict[str, str]:
    threads = str(max(1, round(settings.cpus)))
    folder = str(settings.cache_dir.parent)
    own = {
        "HOME": folder,
        "HF_ENDPOINT": settings.hub_url,
        "HF_HOME": str(settings.cache_dir),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MOORAGE_WORKER_THREADS": threads,
        "OMP_NUM_THREADS": plan.env.get("OMP_NUM_THREADS", threads),
        "PYTHONUNBUFFERED": "1",
    }
    if plan.hub_token is not None:
        own["HF_TOKEN"] = plan.hub_token
    if gpu is not None:
        own["CUDA_VISIBLE_DEVICES"] = gpu
    passed_on = {name: service_env[name] for name in _PASSED_ON if name in service_env}
    return {**passed_on, **plan.env, **own}
