"""The operator's settings of this provider, read once and refused with the name of the one at fault."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from moorage.ports.provider import ProviderConfig

PREFIX = "MOORAGE_KUBERNETES_"
PUBLIC_HUB = "https://huggingface.co"
DEFAULT_NAMESPACE = "moorage"

# Runtimes of our worker that have an image; any other runtime has one when its variable is set.
WORKER_RUNTIMES = ("diffusers", "onnx", "sentence-transformers", "transformers")

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def own_version() -> str:
    """This distribution's version: the tag of the default images, and part of the User-Agent."""
    try:
        return version("moorage-kubernetes")
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return "0.0.0"


def image_variable(runtime: str) -> str:
    return f"{PREFIX}IMAGE_{runtime.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """Times are in seconds. `images` is by runtime; `installation` is fit to be the value of a label.

    `capacity_patience` is how long a pod may wait for a node, `growth_patience` the same once an autoscaler
    has said that it adds one, `pull_patience` how long a registry may be out of order, and `volume_patience`
    a volume be missing. `start_window` is the time that a container has to start.
    """

    installation: str
    images: Mapping[str, str]
    namespace: str = DEFAULT_NAMESPACE
    hub_url: str = PUBLIC_HUB
    capacity_patience: float = 120.0
    growth_patience: float = 900.0
    pull_patience: float = 300.0
    volume_patience: float = 120.0
    start_window: float = 1800.0
    call_seconds: float = 20.0

    @classmethod
    def read(cls, config: ProviderConfig) -> KubernetesSettings:
        """Raises ValueError with the variable and the rule that it breaks."""
        environ = config.environ
        return cls(
            installation=label_value(config.installation),
            images=_images(environ),
            namespace=_namespace(environ),
            hub_url=config.hub_url.rstrip("/"),
            capacity_patience=_number(environ, "CAPACITY_PATIENCE_SECONDS", 120, (0.01, 86_400)),
            growth_patience=_number(environ, "GROWTH_PATIENCE_SECONDS", 900, (0.01, 86_400)),
            pull_patience=_number(environ, "PULL_PATIENCE_SECONDS", 300, (0.01, 86_400)),
            volume_patience=_number(environ, "VOLUME_PATIENCE_SECONDS", 120, (0.01, 86_400)),
            start_window=_number(environ, "START_WINDOW_SECONDS", 1800, (10, 86_400)),
            call_seconds=_number(environ, "CALL_SECONDS", 20, (0.05, 600)),
        )


def label_value(text: str) -> str:
    """`text` where it can be the value of a label, else a digest of it."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_dns_label(text: str) -> bool:
    return _DNS_LABEL.fullmatch(text) is not None


def _namespace(environ: Mapping[str, str]) -> str:
    name = environ.get(f"{PREFIX}NAMESPACE") or DEFAULT_NAMESPACE
    if not is_dns_label(name):
        raise ValueError(
            f"{PREFIX}NAMESPACE must be at most 63 lower-case letters, digits and hyphens; it is {name!r}"
        )
    return name


def _images(environ: Mapping[str, str]) -> dict[str, str]:
    """By runtime. The runtime's own variable wins over the one for all, and that over the default."""
    for_all = environ.get(f"{PREFIX}IMAGE") or f"moorage/worker-{{engine}}:{own_version()}"
    images = {name: for_all.replace("{engine}", name) for name in WORKER_RUNTIMES}
    for variable, image in environ.items():
        if variable.startswith(f"{PREFIX}IMAGE_") and image:
            images[variable.removeprefix(f"{PREFIX}IMAGE_").lower().replace("_", "-")] = image
    for runtime, image in images.items():
        if re.search(r"[\s{}]", image):
            name = image_variable(runtime) if environ.get(image_variable(runtime)) else f"{PREFIX}IMAGE"
            raise ValueError(f"{name} must be an image reference, with {{engine}} at most; it is {image!r}")
    return images


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
