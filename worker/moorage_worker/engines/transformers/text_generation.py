"""Task `text-generation`: goes on from a text, or answers a chat by the model's own template."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList

from moorage_worker.engines.base import QUIET, Engine, Run
from moorage_worker.engines.no_tensors import NoTensors
from moorage_worker.engines.transformers.generation_request import (
    Prompt,
    Sampling,
    cut_at_stop,
    read_request,
    tokens_to_make,
)
from moorage_worker.engines.transformers.pretrained import Pretrained
from moorage_worker.errors import BadInput, Cancelled, cause_line
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.model_layout import TEXT_GENERATION

_SPARE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt of a request: `number` of `count`, from 0; its tokens, and how many to make at most."""

    number: int
    count: int
    prompt_tokens: int
    most: int


class _Watch(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
    """Tells a run of each token, and ends the generation when the run is cancelled or a stop string is there.

    The library's own stop strings need a vocabulary that it can turn into text piece by piece.
    """

    def __init__(self, run: Run, part: Part, sampling: Sampling, tokenizer: Any) -> None:
        self._run, self._part = run, part
        self._most, self._stops, self._tokenizer = part.most, sampling.stop, tokenizer
        # A token is at least one character, but for a few that are half a one or none.
        self._tail = 2 * max(map(len, self._stops), default=0) + _SPARE_TOKENS

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """[1] boolean, as the library wants it."""
        made = input_ids[0, self._part.prompt_tokens :]
        share = (self._part.number + len(made) / self._most) / self._part.count
        self._run.progress(min(share, 1.0), f"token {len(made)} of at most {self._most}")
        ended = self._run.cancelled or self._stopped(made[-self._tail :])
        return torch.full((1,), ended, dtype=torch.bool, device=input_ids.device)

    def _stopped(self, made: Any) -> bool:
        if not self._stops:
            return False
        return cut_at_stop(self._tokenizer.decode(made, skip_special_tokens=True), self._stops)[1]


class TextGenerator(NoTensors):
    """Answers a text or a chat with `{"generated_text", "finish_reason", "usage"}`, a list with a list.

    `finish_reason` is `stop` or `length`; `usage` counts tokens.
    """

    task = TEXT_GENERATION

    def __init__(self, model: Any, tokenizer: Any) -> None:  # of transformers: not typed
        self._model = model
        self._tokenizer = tokenizer
        self._window: int | None = getattr(model.config, "max_position_embeddings", None)
        # Sampling takes from torch's one source of random numbers.
        self._one_at_a_time = threading.Lock()

    def warm_up(self) -> None:
        self.infer("warm up", {"max_new_tokens": 2})

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        request = read_request(inputs, parameters)
        count = len(request.prompts)
        answers: list[Json] = []
        with self._one_at_a_time, torch.inference_mode():
            for i, prompt in enumerate(request.prompts):
                field = "inputs" if request.single else f"inputs[{i}]"
                encoded = self._encode(prompt, field)
                part = self._part(encoded, request.sampling.max_new_tokens, i, count, field)
                if run.cancelled:
                    raise Cancelled
                answers.append(self._generate(encoded, request.sampling, run, part))
        run.progress(1.0, "done")
        return answers[0] if request.single else answers

    def _encode(self, prompt: Prompt, field: str) -> Any:
        if isinstance(prompt, str):
            return self._tokenizer(prompt, return_tensors="pt")
        if not self._tokenizer.chat_template:
            raise BadInput(f"{field}.messages", "template", "this model has no chat template: send a string")
        try:
            return self._tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        except TemplateError as error:
            raise BadInput(
                f"{field}.messages",
                "template",
                f"the model's chat template refuses them: {cause_line(error)}",
            ) from error

    def _part(self, encoded: Any, asked: int | None, number: int, count: int, field: str) -> Part:
        tokens = encoded["input_ids"].shape[1]
        if tokens == 0:
            raise BadInput(field, "empty", "has no token that the model knows")
        return Part(number, count, tokens, tokens_to_make(asked, tokens, self._window, field))

    def _generate(self, encoded: Any, sampling: Sampling, run: Run, part: Part) -> Json:
        watch = _Watch(run, part, sampling, self._tokenizer)
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        seed = random.SystemRandom().randrange(2**63) if sampling.seed is None else sampling.seed
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            [sequence] = self._model.generate(
                **encoded.to(self._model.device),
                **self._arguments(sampling, part.most),
                stopping_criteria=StoppingCriteriaList([watch]),
            )
        if run.cancelled:
            raise Cancelled
        made = sequence[part.prompt_tokens :]
        text, stopped = cut_at_stop(self._tokenizer.decode(made, skip_special_tokens=True), sampling.stop)
        ended = stopped or int(made[-1]) in self._end_tokens()
        return {
            "generated_text": text,
            "finish_reason": "stop" if ended else "length",
            "usage": {
                "prompt_tokens": part.prompt_tokens,
                "completion_tokens": len(made),
                "total_tokens": len(sequence),
            },
        }

    def _arguments(self, sampling: Sampling, most: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "max_new_tokens": most,
            "pad_token_id": self._pad_token(),
        }
        if sampling.temperature == 0:
            # The other settings of the model's own sampling would only be warned about.
            arguments |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        else:
            given = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
            chosen = {name: value for name, value in given.items() if value is not None}
            arguments |= {**chosen, "do_sample": True} if chosen or sampling.seed is not None else {}
        return arguments

    def _end_tokens(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends} - {None}

    def _pad_token(self) -> int:
        """Nothing is padded with one prompt at a time, but the library wants to know."""
        return next(
            (token for token in (self._tokenizer.pad_token_id, *self._end_tokens()) if token is not None), 0
        )


def load_generator(pretrained: Pretrained) -> Engine:
    model = pretrained.model(AutoModelForCausalLM)
    return TextGenerator(model, pretrained.companion(AutoTokenizer))
