"""Which engines there are, whether they can be used here, and how one is loaded.

The one place that lists engines. Asking is cheap: packages are looked up, not imported, since the control
plane asks before it offers to serve a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from moorage_worker.engines.load_options import LoadOptions

if TYPE_CHECKING:
    from moorage_worker.engines.base import Engine
    from moorage_worker.model_folder import ModelFolder


Loader = Callable[["ModelFolder", LoadOptions], "Engine"]


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine, the packages it needs, the extra that installs them, and the way to its loader."""

    packages: tuple[str, ...]
    extra: str
    loader: Callable[[], Loader]

    def reason_unusable(self) -> str | None:
        missing = [name for name in self.packages if find_spec(name) is None]
        if not missing:
            return None
        return f"not installed: {', '.join(missing)}; run: pip install 'moorage-worker[{self.extra}]'"


def _onnx_loader() -> Loader:
    from moorage_worker.engines.onnx.loader import load

    return load


def _sentence_transformers_loader() -> Loader:
    from moorage_worker.engines.sentence_transformers import load

    return load


def _diffusers_loader() -> Loader:
    from moorage_worker.engines.diffusers.loader import load

    return load


def _transformers_loader() -> Loader:
    from moorage_worker.engines.transformers.loader import load

    return load


ENGINES = {
    "onnx": EngineKind(("numpy", "onnxruntime", "tokenizers", "PIL"), "onnx", _onnx_loader),
    "sentence-transformers": EngineKind(
        ("torch", "sentence_transformers"), "sentence-transformers", _sentence_transformers_loader
    ),
    "transformers": EngineKind(
        ("torch", "transformers", "accelerate", "scipy"), "transformers", _transformers_loader
    ),
    "diffusers": EngineKind(
        ("torch", "diffusers", "transformers", "accelerate", "PIL", "av"), "diffusers", _diffusers_loader
    ),
}


def available_engines() -> dict[str, str | None]:
    """Every engine by name: None when it can be used here, else the reason and what to install."""
    return {name: kind.reason_unusable() for name, kind in ENGINES.items()}


def load_engine(name: str, folder: ModelFolder, options: LoadOptions) -> Engine:
    """Load a model. Blocks; raises LoadFailed with the cause."""
    return ENGINES[name].loader()(folder, options)
