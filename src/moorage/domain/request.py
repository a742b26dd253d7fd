"""What a user asks for when creating or planning a deployment, and the rules it must keep.

The rules are here, not in a surface, so that every surface refuses the same things for the same reasons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from moorage.domain.compute import EndpointType, PlacementPolicy, ScalerType, Serverless
from moorage.domain.model import CacheScope, ContainerImage, HubModel, ModelCache, Source, UploadedModel
from moorage.domain.source_rules import hub_errors, image_errors
from moorage.domain.workload import Workload
from moorage.errors import FieldError

MAX_REPLICAS = 100
MAX_ENV_BYTES = 32 * 1024
MIN_DEADLINE_SECONDS = 1.0
MAX_DEADLINE_SECONDS = 7 * 86400.0
ERRORS_TOLD = 20

NAME = re.compile(r"[a-z](?:[a-z0-9-]{1,61}[a-z0-9])")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
S3_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9!_.*'()/+=@:-]{0,900})?")
BUCKET_WORD = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """Exactly one of `hf_model_id`, `model_id` (of a registered model version), `container_image`. Money is
    USD per hour."""

    hf_model_id: str | None = None
    revision: str | None = None
    model_id: str | None = None
    model_version: str | None = None
    container_image: str | None = None
    name: str | None = None
    provider: str = "auto"
    gpu_tier: str | None = None
    region: str | None = None
    spot: bool | None = None
    max_price_per_hour: float | None = None
    min_replicas: int = 1
    max_replicas: int | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    hf_token: str | None = field(default=None, repr=False)
    task: str | None = None
    context_length: int | None = None
    concurrency: int | None = None
    user_webhook_url: str | None = None
    capacity_deadline_seconds: float = 1800.0
    credential: str | None = None  # id or name of a stored one
    endpoint_type: str | None = None
    workers_min: int | None = None
    workers_max: int | None = None
    idle_timeout: int | None = None
    execution_timeout: float | None = None
    flashboot: bool | None = None
    network_volumes: Sequence[str] = ()
    data_centers: Sequence[str] = ()
    scaler_type: str | None = None
    scaler_value: float | None = None
    cache_scope: str = CacheScope.OFF.value
    user_s3_url: str | None = None
    user_aws_access_key_id: str | None = field(default=None, repr=False)
    user_aws_secret_access_key: str | None = field(default=None, repr=False)
    user_aws_endpoint_url: str | None = None
    cluster: str | None = None  # id of an imported one
    node_groups: Sequence[str] = ()  # ids; empty: any of the cluster's
    workload: Workload | None = field(default=None, repr=False)

    @property
    def policy(self) -> PlacementPolicy:
        return PlacementPolicy(
            self.provider,
            self.gpu_tier,
            self.region,
            self.spot,
            self.max_price_per_hour,
            cluster=self.cluster,
            node_groups=tuple(self.node_groups),
        )

    @property
    def serverless(self) -> Serverless:
        """Only after `broken_rules` found none."""
        return Serverless(
            endpoint_type=None if self.endpoint_type is None else EndpointType(self.endpoint_type),
            workers_min=self.workers_min,
            workers_max=self.workers_max,
            idle_timeout=self.idle_timeout,
            execution_timeout=self.execution_timeout,
            flashboot=self.flashboot,
            network_volumes=tuple(self.network_volumes),
            data_centers=tuple(self.data_centers),
            scaler_type=None if self.scaler_type is None else ScalerType(self.scaler_type),
            scaler_value=self.scaler_value,
        )

    @property
    def cache(self) -> ModelCache:
        """Only after `broken_rules` found none."""
        url = None if self.user_s3_url is None else self.user_s3_url.rstrip("/")
        return ModelCache(CacheScope(self.cache_scope), url, self.user_aws_endpoint_url)

    @property
    def cache_keys(self) -> dict[str, str]:
        """What opens the owner's bucket; empty where no bucket is used."""
        if self.user_aws_access_key_id is None or self.user_aws_secret_access_key is None:
            return {}
        return {
            "access_key_id": self.user_aws_access_key_id,
            "secret_access_key": self.user_aws_secret_access_key,
        }

    @property
    def source(self) -> Source:
        """Only after `broken_rules` found none."""
        if self.hf_model_id is not None:
            return HubModel(self.hf_model_id, self.revision)
        if self.model_id is not None:
            return UploadedModel(self.model_id)
        assert self.container_image is not None
        return ContainerImage(self.container_image)


def broken_rules(request: NewDeployment) -> tuple[FieldError, ...]:
    """The rules that the request breaks by itself, without asking anybody; at most ERRORS_TOLD of them."""
    return tuple(islice(chain.from_iterable(rule(request) for rule in _RULES), ERRORS_TOLD))


def _error(name: str, rule: str, message: str) -> FieldError:
    return FieldError(f"body.{name}", rule, message)


def _one_source(request: NewDeployment) -> Iterator[FieldError]:
    names = ("hf_model_id", "model_id", "container_image")
    given = [name for name in names if getattr(request, name) is not None]
    if len(given) == 1:
        return
    if not given:
        yield _error("hf_model_id", "exactly_one_source", f"Give exactly one of {', '.join(names)}.")
    for name in given:
        yield _error(name, "exactly_one_source", f"Give only one of {', '.join(given)}.")


def _one_version(request: NewDeployment) -> Iterator[FieldError]:
    if request.model_version is not None:
        message = "A model_id names one version already; leave out model_version."
        yield _error("model_version", "in_model_id", message)


def _places(request: NewDeployment) -> Iterator[FieldError]:
    if request.node_groups and request.cluster is None:
        yield _error("node_groups", "needs_cluster", "node_groups go with the cluster that they are of.")


def _well_formed(request: NewDeployment) -> Iterator[FieldError]:
    yield from hub_errors(request.hf_model_id, request.revision, request.hf_token)
    yield from image_errors(request.container_image)
    if request.name is not None and not NAME.fullmatch(request.name):
        yield _error(
            "name",
            "name",
            "A name has 3 to 63 lower-case letters, digits and hyphens, and starts with a letter.",
        )


def _plain_text(request: NewDeployment) -> Iterator[FieldError]:
    for name in ("provider", "gpu_tier", "region", "task", "credential"):
        value = getattr(request, name)
        if value is not None and not value.isprintable():
            yield _error(name, "printable", f"{name} holds a character that cannot be printed.")


def _replicas(request: NewDeployment) -> Iterator[FieldError]:
    for name in ("min_replicas", "max_replicas"):
        value = getattr(request, name)
        if value is not None and not 1 <= value <= MAX_REPLICAS:
            yield _error(name, "range", f"{name} is from 1 to {MAX_REPLICAS}.")
    if request.max_replicas is not None and request.min_replicas > request.max_replicas:
        yield _error(
            "min_replicas",
            "min_at_most_max",
            f"min_replicas ({request.min_replicas}) is above max_replicas ({request.max_replicas}).",
        )


def _positive(request: NewDeployment) -> Iterator[FieldError]:
    limits = {"context_length": 2**24, "concurrency": 10_000, "max_price_per_hour": 1_000_000}
    for name, limit in limits.items():
        value = getattr(request, name)
        if value is not None and not 0 < value <= limit:
            yield _error(name, "range", f"{name} is above 0 and at most {limit}.")
    if not MIN_DEADLINE_SECONDS <= request.capacity_deadline_seconds <= MAX_DEADLINE_SECONDS:
        yield _error(
            "capacity_deadline_seconds",
            "range",
            f"It is from {MIN_DEADLINE_SECONDS:.0f} s to {MAX_DEADLINE_SECONDS:.0f} s.",
        )


def environment_errors(env: Mapping[str, str]) -> Iterator[FieldError]:
    for name in env:
        if not ENV_NAME.fullmatch(name):
            yield _error(
                f"env.{name[:64]}",
                "env_name",
                "A name has at most 128 letters, digits and '_', no digit first.",
            )
        elif name.upper().startswith("MOORAGE_"):
            yield _error(
                f"env.{name}", "env_reserved", "Names that begin with MOORAGE_ are the service's own."
            )
    for name, value in env.items():
        if "\x00" in value or _SURROGATE.search(value):
            yield _error(
                f"env.{name[:64]}", "env_value", "A value cannot hold a NUL or half of a surrogate pair."
            )
    size = sum(len(text.encode(errors="replace")) for item in env.items() for text in item)
    if size > MAX_ENV_BYTES:
        yield _error("env", "env_size", f"All names and values together are at most {MAX_ENV_BYTES} bytes.")


def _environment(request: NewDeployment) -> Iterator[FieldError]:
    return environment_errors(request.env)


def _serverless(request: NewDeployment) -> Iterator[FieldError]:
    ranges: dict[str, tuple[float, float]] = {
        "workers_min": (0, MAX_REPLICAS),
        "workers_max": (1, MAX_REPLICAS),
        "idle_timeout": (1, 3600),
        "execution_timeout": (5, 7 * 86400),
    }
    for name, (low, high) in ranges.items():
        value = getattr(request, name)
        if value is not None and not low <= value <= high:
            yield _error(name, "range", f"{name} is from {low:g} to {high:g}.")
    for name, kind in (("endpoint_type", EndpointType), ("scaler_type", ScalerType)):
        value = getattr(request, name)
        if value is not None and value not in [member.value for member in kind]:
            yield _error(name, "one_of", f"{name} is one of {', '.join(member.value for member in kind)}.")
    low_workers, high_workers = request.workers_min, request.workers_max
    if low_workers is not None and high_workers is not None and low_workers > high_workers:
        message = f"workers_min ({low_workers}) is above workers_max ({high_workers})."
        yield _error("workers_min", "min_at_most_max", message)
    for name in ("network_volumes", "data_centers"):
        for value in getattr(request, name):
            if not PLACE.fullmatch(value):
                yield _error(name, "id", f"{value[:64]!r} is no id: letters, digits, '-' and '_'.")


def _scaler(request: NewDeployment) -> Iterator[FieldError]:
    kind, value = request.scaler_type, request.scaler_value
    if value is not None and kind is None:
        yield _error("scaler_value", "needs_scaler_type", "scaler_value goes with scaler_type.")
    if value is None:
        return
    if kind == ScalerType.QUEUE_DELAY and not 0.5 <= value <= 3600:
        yield _error("scaler_value", "range", "For queue_delay it is from 0.5 to 3600 seconds.")
    if kind == ScalerType.REQUEST_COUNT and not (1 <= value <= 10_000 and value == int(value)):
        yield _error("scaler_value", "range", "For request_count it is a whole number from 1 to 10000.")
    if request.endpoint_type == EndpointType.LOAD_BALANCER and kind == ScalerType.QUEUE_DELAY:
        message = "A load balancer has no queue: use request_count."
        yield _error("scaler_type", "suits_endpoint_type", message)


def _cache(request: NewDeployment) -> Iterator[FieldError]:
    scopes = [scope.value for scope in CacheScope]
    if request.cache_scope not in scopes:
        yield _error("cache_scope", "one_of", f"cache_scope is one of {', '.join(scopes)}.")
    needed = ("user_s3_url", "user_aws_access_key_id", "user_aws_secret_access_key")
    for name in (*needed, "user_aws_endpoint_url"):
        value = getattr(request, name)
        private = request.cache_scope == CacheScope.PRIVATE
        if private and value is None and name in needed:
            yield _error(name, "needed_for_private_cache", f"cache_scope private needs {name}.")
        elif not private and value is not None:
            yield _error(name, "needs_private_cache", f"{name} goes with cache_scope private.")
        elif value is not None and name != "user_s3_url" and not BUCKET_WORD.fullmatch(value):
            yield _error(name, "visible", f"{name} has 1 to 512 visible ASCII characters, no space.")
    if request.user_s3_url is not None and not S3_URL.fullmatch(request.user_s3_url):
        message = "It is s3://bucket or s3://bucket/prefix; the bucket has 3 to 63 lower-case characters."
        yield _error("user_s3_url", "s3_url", message)
    if request.cache_scope != CacheScope.OFF and request.hf_model_id is None:
        yield _error("cache_scope", "needs_hf_model_id", "Only Hugging Face models are cached.")
    endpoint = request.user_aws_endpoint_url
    if endpoint is not None and not endpoint.startswith(("https://", "http://")):
        yield _error("user_aws_endpoint_url", "url", "It begins with https:// (or http://).")


_RULES: tuple[Callable[[NewDeployment], Iterator[FieldError]], ...] = (
    _one_source,
    _one_version,
    _places,
    _well_formed,
    _plain_text,
    _replicas,
    _positive,
    _environment,
    _serverless,
    _scaler,
    _cache,
)
