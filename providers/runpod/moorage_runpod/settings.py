"""The operator's settings of this provider, read once and refused with the name of the one at fault."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from moorage.ports.provider import ProviderConfig

PREFIX = "MOORAGE_RUNPOD_"
PUBLIC_HUB = "https://huggingface.co"
IDLE_TIMEOUTS = (1, 3600)  # seconds, RunPod's own bounds
EXECUTION_TIMEOUTS = (5, 7 * 24 * 3600)

# Runtimes of the worker that have a GPU image; any other runtime has one when its variable is set.
WORKER_RUNTIMES = ("diffusers", "sentence-transformers", "transformers")


def own_version() -> str:
    """This distribution's version: the tag of the default images, and part of the User-Agent."""
    try:
        return version("moorage-runpod")
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return "0.0.0"


def image_variable(runtime: str) -> str:
    return f"{PREFIX}IMAGE_{runtime.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class RunPodSettings:
    """Times are in seconds. `images` is by runtime. `list_lag_seconds` is how long an endpoint that was just
    made may be missing from RunPod's list; `log_seconds` the time between two looks into a worker's log."""

    api_url: str
    hub_url: str
    installation: str
    workers_min: int
    workers_max: int
    idle_timeout: int
    execution_timeout: float
    capacity_seconds: float
    log_seconds: float
    list_lag_seconds: float
    images: Mapping[str, str]
    template_id: str | None = None
    registry: str | None = None
    disk_gb: int | None = None
    min_cuda: str | None = None

    @classmethod
    def read(cls, config: ProviderConfig) -> RunPodSettings:
        """Raises ValueError with the variable and the rule that it breaks."""
        environ = config.environ
        workers_min = _integer(environ, "WORKERS_MIN", 0, (0, 1000))
        workers_max = _integer(environ, "WORKERS_MAX", max(3, workers_min), (1, 1000))
        if workers_max < workers_min:
            raise ValueError(
                f"{PREFIX}WORKERS_MAX must be at least {PREFIX}WORKERS_MIN ({workers_min}); "
                f"it is {workers_max}"
            )
        return cls(
            api_url=_url(environ, "API_URL", "https://api.runpod.io"),
            hub_url=config.hub_url.rstrip("/"),
            installation=config.installation,
            workers_min=workers_min,
            workers_max=workers_max,
            idle_timeout=_integer(environ, "IDLE_TIMEOUT_SECONDS", 120, IDLE_TIMEOUTS),
            execution_timeout=_number(environ, "EXECUTION_TIMEOUT_SECONDS", 600, EXECUTION_TIMEOUTS),
            capacity_seconds=_number(environ, "CAPACITY_SECONDS", 120, (0.01, 3600)),
            log_seconds=_number(environ, "LOG_SECONDS", 15, (0, 3600)),
            list_lag_seconds=_number(environ, "LIST_LAG_SECONDS", 10, (0, 600)),
            images=_images(environ),
            template_id=environ.get(f"{PREFIX}TEMPLATE_ID") or None,
            registry=environ.get(f"{PREFIX}REGISTRY") or None,
            disk_gb=_integer(environ, "DISK_GB", 0, (1, 10_000)) or None,
            min_cuda=_min_cuda(environ),
        )


def _images(environ: Mapping[str, str]) -> dict[str, str]:
    """By runtime. The runtime's own variable wins over the one for all, and that over the default."""
    for_all = environ.get(f"{PREFIX}IMAGE")
    images = {name: for_all or f"moorage/worker-{name}:{own_version()}" for name in WORKER_RUNTIMES}
    for variable, image in environ.items():
        if variable.startswith(f"{PREFIX}IMAGE_") and image:
            images[variable.removeprefix(f"{PREFIX}IMAGE_").lower().replace("_", "-")] = image
    for runtime, image in images.items():
        if re.search(r"\s", image):
            name = image_variable(runtime) if environ.get(image_variable(runtime)) else f"{PREFIX}IMAGE"
            raise ValueError(f"{name} must be an image reference without spaces; it is {image!r}")
    return images


def _url(environ: Mapping[str, str], name: str, default: str) -> str:
    text = (environ.get(f"{PREFIX}{name}") or default).rstrip("/")
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise ValueError(f"{PREFIX}{name} must be an http(s) URL without user, query or fragment")
    return text


def _min_cuda(environ: Mapping[str, str]) -> str | None:
    text = environ.get(f"{PREFIX}MIN_CUDA")
    if text and not re.fullmatch(r"\d+\.\d+", text):
        raise ValueError(f"{PREFIX}MIN_CUDA must be a version such as 12.8; it is {text!r}")
    return text or None


def _integer(environ: Mapping[str, str], name: str, default: int, bounds: tuple[int, int]) -> int:
    value = _number(environ, name, default, bounds)
    if value != int(value):
        raise ValueError(f"{PREFIX}{name} must be a whole number; it is {environ[PREFIX + name]!r}")
    return int(value)


def _number(environ: Mapping[str, str], name: str, default: float, bounds: tuple[float, float]) -> float:
    text = environ.get(f"{PREFIX}{name}")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    least, most = bounds
    if not least <= value <= most:
        raise ValueError(f"{PREFIX}{name} must be a number from {least:g} to {most:g}; it is {text!r}")
    return value
