"""A model folder as the auto classes of transformers take it: local files, no code of the repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import JsonObject
from moorage_worker.model_folder import ModelFolder

_LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True, slots=True)
class Pretrained:
    """`device` is a torch device; `weights` are the arguments that choose dtype and variant."""

    folder: ModelFolder
    config: JsonObject
    device: str
    weights: dict[str, Any]  # a torch dtype and a name

    # Any, here and below: the classes of transformers are not typed.
    def model(self, auto_class: Any) -> Any:
        """The model of an auto class, on the device and ready to infer. Raises LoadFailed when weights are
        missing: the library would fill in random ones."""
        root = str(self.folder.root)
        model, report = auto_class.from_pretrained(root, output_loading_info=True, **self.weights, **_LOCAL)
        missing = sorted(report["missing_keys"])
        if missing:
            raise LoadFailed(
                f"the model's files lack {len(missing)} of the weights that its task needs, as {missing[0]}"
            )
        return model.to(self.device).eval()

    def companion(self, auto_class: Any) -> Any:
        """A tokenizer, feature extractor or processor."""
        return auto_class.from_pretrained(str(self.folder.root), **_LOCAL)
