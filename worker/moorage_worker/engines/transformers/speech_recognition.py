"""Task `automatic-speech-recognition`: a WAV file in, its words out."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutomaticSpeechRecognitionPipeline,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    StoppingCriteria,
    StoppingCriteriaList,
)

from moorage_worker.engines.base import QUIET, Array, Engine, Run
from moorage_worker.engines.no_tensors import NoTensors
from moorage_worker.engines.parameters import Parameters
from moorage_worker.engines.transformers.pretrained import Pretrained
from moorage_worker.engines.transformers.wav import decode_wav
from moorage_worker.errors import BadInput, Cancelled
from moorage_worker.json_types import Json, JsonObject, kind
from moorage_worker.model_layout import SPEECH_RECOGNITION

MAX_NEW_TOKENS = 4096
_WINDOW_SECONDS = 30  # what models of the wav2vec kind hear at once; longer sound is cut with an overlap


class _Unwanted(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
    """Ends a generation that nobody waits for."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return input_ids.new_full((input_ids.shape[0],), self._run.cancelled, dtype=torch.bool)


class SpeechRecognizer(NoTensors):
    """Answers a sound with `{"text"}`."""

    task = SPEECH_RECOGNITION

    def __init__(self, pipeline: Any, *, generates: bool) -> None:  # of transformers: not typed
        self._pipeline = pipeline
        # Models that write the text word by word, as Whisper does, against those that label each moment.
        self._generates = generates
        self._rate: int = pipeline.feature_extractor.sampling_rate
        self._parameters = ("max_new_tokens",) if generates else ()
        self._one_at_a_time = threading.Lock()

    def warm_up(self) -> None:
        self._recognize(np.zeros(self._rate, np.float32), 2, QUIET)

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        most = Parameters(parameters, self._parameters).whole("max_new_tokens", 1, MAX_NEW_TOKENS)
        sound = decode_wav(*_encoded(inputs), self._rate)
        run.progress(0.0, f"{len(sound) / self._rate:.1f} seconds of sound")
        text = self._recognize(sound, most, run)
        run.progress(1.0, "done")
        return {"text": text}

    def _recognize(self, sound: Array, most: int | None, run: Run) -> str:
        """`sound` is float32 [samples] at the model's rate."""
        options: dict[str, Any] = {}
        if self._generates:
            generate: dict[str, Any] = {"stopping_criteria": StoppingCriteriaList([_Unwanted(run)])}
            options["generate_kwargs"] = generate | ({} if most is None else {"max_new_tokens": most})
            # Whisper hears 30 seconds; with timestamps it goes on by itself.
            options["return_timestamps"] = len(sound) > _WINDOW_SECONDS * self._rate
        else:
            options["chunk_length_s"] = _WINDOW_SECONDS
        with self._one_at_a_time:
            if run.cancelled:
                raise Cancelled
            answer = self._pipeline({"raw": sound, "sampling_rate": self._rate}, **options)
        if run.cancelled:
            raise Cancelled
        return str(answer["text"]).strip()


def _encoded(inputs: Json) -> tuple[str, str]:
    """The encoded sound and the field it stood in."""
    field = "inputs"
    if isinstance(inputs, dict):
        unknown = next((name for name in inputs if name != "audio"), None)
        if unknown is not None:
            raise BadInput(f"inputs.{unknown}", "unknown", "is not a field here (known: audio)")
        if "audio" not in inputs:
            raise BadInput("inputs.audio", "required", "is missing")
        inputs, field = inputs["audio"], "inputs.audio"
    if not isinstance(inputs, str):
        raise BadInput(field, "type", f"must be a base64 string, got {kind(inputs)}")
    return inputs, field


def load_recognizer(pretrained: Pretrained) -> Engine:
    names = pretrained.companion(AutoConfig).architectures or []
    generates = not any(name.endswith("ForCTC") for name in names)
    model = pretrained.model(AutoModelForSpeechSeq2Seq if generates else AutoModelForCTC)
    pipeline = AutomaticSpeechRecognitionPipeline(
        model=model,
        tokenizer=pretrained.companion(AutoTokenizer),
        feature_extractor=pretrained.companion(AutoFeatureExtractor),
        device=model.device,
    )
    return SpeechRecognizer(pipeline, generates=generates)
