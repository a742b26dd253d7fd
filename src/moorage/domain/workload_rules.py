"""The rules that a workload must keep: those that the BYOC document states, and those of every cluster.

They are here, not in a surface, so that every surface refuses the same things for the same reasons, and
before anything is stored: what a cluster would refuse later is refused now, by name. A rule that needs the
cluster itself (a storage class, a tool that is missing) is not here but at its provider.

Field paths are those of `Workload`, below `body.workload`; a surface with other words translates them.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from moorage.domain.request import ENV_NAME, ERRORS_TOLD
from moorage.domain.workload import PERCENTILES, RESOURCE_METRICS, Metric, Volume, Workload
from moorage.errors import FieldError

TAGS = ("testing", "staging", "production")
MAX_CPU = 4096.0
MAX_MEMORY = 64 * 1024**4
MAX_GPUS = 64
MAX_VOLUME = 1024**5
MAX_VOLUMES = 16
MAX_SECONDS = 7 * 86400
MAX_CONSUMERS = 256  # of one pod; more our worker does not take
MAX_ARGUMENT_BYTES = 32 * 1024

PATH = re.compile(r"/[\x21-\x7e]{0,1023}")
MOUNT_PATH = re.compile(r"(?:/[A-Za-z0-9._@+-]{1,255}){1,16}/?")
DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")  # no argument of a process, or no UTF-8

# The rules that are about more fields than the one that is named.
RESOURCES_POSITIVE = "greater_than_zero"
LIMIT_BELOW_REQUEST = "limit_at_least_request"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A workload, and what it is to run. `env` None: not known here."""

    workload: Workload
    imported: bool
    custom: bool
    env: Collection[str] | None


def broken_rules(
    workload: Workload, *, imported: bool, custom: bool, env: Collection[str] | None = None
) -> tuple[FieldError, ...]:
    """The rules that the workload breaks by itself, without asking any cluster; at most ERRORS_TOLD.

    `imported`: it runs a container that its owner brought. `custom`: it runs a model of its owner's choice.
    `env` are the names of the environment variables that go with it, None where they are not at hand.
    """
    asked = _Asked(workload, imported, custom, env)
    return tuple(islice(chain.from_iterable(rule(asked) for rule in _RULES), ERRORS_TOLD))


def default_volume_name(mount_path: str) -> str:
    """`pvc-<mount_path>`, made a name that a cluster takes: `/data/My models` is `pvc-data-my-models`."""
    slug = re.sub(r"[^a-z0-9]+", "-", mount_path.lower()).strip("-")
    return f"pvc-{slug or 'root'}"[:63].rstrip("-")


def _error(name: str, rule: str, message: str) -> FieldError:
    return FieldError(f"body.workload.{name}", rule, message)


def _resources(asked: _Asked) -> Iterator[FieldError]:
    given = asked.workload.resources
    pairs = (
        ("cpu", "CPU", given.cpu_request, given.cpu_limit, MAX_CPU, "vCPUs"),
        ("memory", "Memory", given.memory_request, given.memory_limit, MAX_MEMORY, "bytes"),
    )
    for name, word, request, limit, most, unit in pairs:
        amounts = [amount for amount in (request, limit) if amount is not None]
        field = f"resources.{name}_request"
        if any(not amount > 0 for amount in amounts):  # NaN is not above 0 either
            yield _error(field, RESOURCES_POSITIVE, f"{word} request and limit must be greater than 0")
        elif any(amount > most for amount in amounts):
            yield _error(field, "range", f"{word} request and limit are at most {most:g} {unit}.")
        elif request is not None and limit is not None and limit < request:
            inner = word if word.isupper() else word.lower()
            message = f"{word} limit must be greater than or equal to {inner} request"
            yield _error(f"resources.{name}_limit", LIMIT_BELOW_REQUEST, message)
    if given.gpus is not None and not 0 <= given.gpus <= MAX_GPUS:
        yield _error("resources.gpus", "range", f"gpus is from 0 to {MAX_GPUS}.")


def _required_of_containers(asked: _Asked) -> Iterator[FieldError]:
    if not asked.imported:
        return
    rule = "required_for_imported_containers"
    if asked.workload.ports is None:
        yield _error("ports", rule, "Ports are required for imported containers.")
    if asked.workload.health is None:
        yield _error("health", rule, "A health check is required for imported containers.")


def _ports(asked: _Asked) -> Iterator[FieldError]:
    ports = asked.workload.ports
    if ports is None:
        return
    for name, port in (("http", ports.http), ("grpc", ports.grpc)):
        if port is not None and not _is_port(port):
            yield _error(f"ports.{name}", "port", f"The {name} port is from 1 to 65535.")
    if ports.http == ports.grpc:
        yield _error("ports.grpc", "different_ports", "The http and the grpc port are different ports.")


def _health(asked: _Asked) -> Iterator[FieldError]:
    health = asked.workload.health
    if health is None:
        return
    if not PATH.fullmatch(health.path):
        message = "The path starts with '/' and has at most 1024 visible ASCII characters."
        yield _error("health.path", "url_path", message)
    if not _is_port(health.port):
        yield _error("health.port", "port", "The port is from 1 to 65535.")
    for name, least in (("initial_delay", 0), ("period", 1), ("timeout", 1)):
        if not least <= getattr(health, name) <= MAX_SECONDS:
            yield _error(f"health.{name}", "range", f"It is from {least} to {MAX_SECONDS} seconds.")


def _container_only(asked: _Asked) -> Iterator[FieldError]:
    if asked.imported:
        return
    for name in ("entrypoint", "command", "working_dir"):
        if getattr(asked.workload, name):
            message = "Only an imported container can have its entrypoint, command or working directory set."
            yield _error(name, "only_for_imported_containers", message)
    if asked.env:
        message = "Environment variables are only for imported containers."
        yield FieldError("body.env", "only_for_imported_containers", message)


def _container(asked: _Asked) -> Iterator[FieldError]:
    workload = asked.workload
    for name, words in (("entrypoint", workload.entrypoint), ("command", workload.command)):
        if any(_UNWRITABLE.search(word) for word in words):
            yield _error(name, "argument", f"A word of the {name} cannot hold a NUL or half a character.")
        elif sum(len(word.encode(errors="replace")) for word in words) > MAX_ARGUMENT_BYTES:
            yield _error(name, "size", f"The {name} has at most {MAX_ARGUMENT_BYTES} bytes.")
    if workload.entrypoint and not workload.entrypoint[0]:
        yield _error("entrypoint", "program", "The entrypoint begins with the name of a program.")
    folder = workload.working_dir
    if folder is not None and (
        not folder.startswith("/") or len(folder) > 4096 or _UNWRITABLE.search(folder)
    ):
        yield _error("working_dir", "absolute_path", "The working directory is an absolute path.")


def _volumes(asked: _Asked) -> Iterator[FieldError]:
    volumes = asked.workload.volumes
    if volumes and not (asked.imported or asked.custom):
        message = "Persistent volume claims are only for imported containers and custom models."
        yield _error("volumes", "only_for_imported_and_custom", message)
        return
    if len(volumes) > MAX_VOLUMES:
        yield _error("volumes", "too_many", f"There are at most {MAX_VOLUMES} volumes.")
        return
    for index, volume in enumerate(volumes):
        for name, rule, message in _broken_volume(volume):
            yield _error(f"volumes[{index}].{name}", rule, message)
    yield from _repeated(volumes)


def _broken_volume(volume: Volume) -> Iterator[tuple[str, str, str]]:
    path = volume.mount_path
    if not MOUNT_PATH.fullmatch(path) or posixpath.normpath(path) != path.rstrip("/"):
        yield (
            "mount_path",
            "absolute_path",
            "The mount path is absolute, below '/', without '.' or '..': letters, digits and '._@+-'.",
        )
    if not DNS_LABEL.fullmatch(volume.name):
        message = "The name has at most 63 lower-case letters, digits and '-', no '-' first or last."
        yield "name", "dns_label", message
    if not 0 < volume.size <= MAX_VOLUME:
        yield "size", "range", f"The size is above 0 and at most {MAX_VOLUME // 1024**3} Gi."
    if volume.storage_class is not None and not DNS_SUBDOMAIN.fullmatch(volume.storage_class):
        yield "storage_class", "dns_subdomain", "It is the name of a storage class of the cluster."


def _repeated(volumes: Sequence[Volume]) -> Iterator[FieldError]:
    """Two volumes of one name are one volume; two at one path hide each other."""
    names = Counter(volume.name for volume in volumes)
    paths = Counter(volume.mount_path.rstrip("/") for volume in volumes)
    for index, volume in enumerate(volumes):
        if paths[volume.mount_path.rstrip("/")] > 1:
            message = "Each volume has a mount path of its own."
            yield _error(f"volumes[{index}].mount_path", "distinct", message)
        elif names[volume.name] > 1:
            message = f"{volume.name} is the name of several volumes; give each a name of its own."
            yield _error(f"volumes[{index}].name", "distinct", message)


def _targets(asked: _Asked) -> Iterator[FieldError]:
    autoscale = asked.workload.autoscale
    if autoscale is None:
        return
    if not autoscale.targets:
        yield _error("autoscale.targets", "non_empty", "targets must be a non-empty array.")
    seen: set[Metric] = set()
    for index, target in enumerate(autoscale.targets):
        place = f"autoscale.targets[{index}]"
        if target.metric in seen:
            message = f"{target.metric} has a target already; one target for each metric."
            yield _error(f"{place}.metric", "one_target_for_each_metric", message)
        seen.add(target.metric)
        broken = _broken_amount(target.metric, target.target)
        if broken is not None:
            yield _error(f"{place}.target", "range", broken)
        if target.percentile is not None and target.metric is not Metric.LATENCY:
            yield _error(f"{place}.percentile", "only_for_latency", "percentile is only for latency.")
        elif target.percentile is not None and target.percentile not in PERCENTILES:
            told = ", ".join(map(str, PERCENTILES))
            yield _error(f"{place}.percentile", "one_of", f"percentile must be one of: {told}.")
        if target.metric is Metric.QUEUE_LENGTH and asked.workload.queued is None:
            message = "queue_length is only available for async deployments."
            yield _error(f"{place}.metric", "only_for_async", message)


def _broken_amount(metric: Metric, amount: float) -> str | None:
    if not (math.isfinite(amount) and 0 < amount <= 10**9):
        return "target is above 0 and at most 1000000000."
    if metric in RESOURCE_METRICS and amount != int(amount):
        return f"target of {metric} is a whole number of per cent."
    if metric in (Metric.GPU, Metric.GRAM) and amount > 100:
        return f"target of {metric} is at most 100 per cent."
    return None


def _scale_to_zero(asked: _Asked) -> Iterator[FieldError]:
    workload, autoscale = asked.workload, asked.workload.autoscale
    metrics = {target.metric for target in autoscale.targets} if autoscale else set()
    if workload.scale_to_zero and metrics <= RESOURCE_METRICS:
        message = "Scaling to zero needs a metric besides cpu and ram: no replica uses none of them."
        yield _error("scale_to_zero", "needs_another_metric", message)
    cooldown = autoscale.cooldown_seconds if autoscale else None
    if cooldown is None:
        return
    if not workload.scale_to_zero:
        message = "cooldown_period is only for deployments that scale to zero."
        yield _error("autoscale.cooldown_seconds", "only_for_scale_to_zero", message)
    elif not 0 <= cooldown <= MAX_SECONDS:
        message = f"cooldown_period is from 0 to {MAX_SECONDS} seconds."
        yield _error("autoscale.cooldown_seconds", "range", message)


def _queued(asked: _Asked) -> Iterator[FieldError]:
    queued = asked.workload.queued
    if queued is None:
        return
    if asked.imported or not asked.custom:
        yield _error("queued", "only_for_custom_models", "ASYNC is only available for custom models.")
    if not 1 <= queued.consumers <= MAX_CONSUMERS:
        yield _error("queued.consumers", "range", f"consumer_count is from 1 to {MAX_CONSUMERS}.")


def _rest(asked: _Asked) -> Iterator[FieldError]:
    grace, tag = asked.workload.grace_seconds, asked.workload.tag
    if grace is not None and not 0 <= grace <= MAX_SECONDS:
        message = f"The termination grace period is from 0 to {MAX_SECONDS} seconds."
        yield _error("grace_seconds", "range", message)
    if tag is not None and tag not in TAGS:
        yield _error("tag", "one_of", f"It is one of: {', '.join(TAGS)}.")
    for name in asked.workload.secret_env:
        if not ENV_NAME.fullmatch(name):
            message = "A name has at most 128 letters, digits and '_', no digit first."
            yield _error("secret_env", "env_name", message)
        elif asked.env is not None and name not in asked.env:
            yield _error("secret_env", "named_in_env", f"{name} is secret, and not in the environment.")


def _is_port(port: int) -> bool:
    return 1 <= port <= 65535


_RULES: tuple[Callable[[_Asked], Iterator[FieldError]], ...] = (
    _resources,
    _required_of_containers,
    _ports,
    _health,
    _container_only,
    _container,
    _volumes,
    _targets,
    _scale_to_zero,
    _queued,
    _rest,
)
