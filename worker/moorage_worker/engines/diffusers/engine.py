"""Runs one diffusers pipeline: from a checked request to files, step by step, one request at a time."""

from __future__ import annotations

import base64
import inspect
import random
import threading
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from moorage_worker.engines.base import QUIET, Run
from moorage_worker.engines.diffusers.encoding import mp4, png
from moorage_worker.engines.diffusers.request import MAX_SEED, MAX_SIDE, PipelineCall, Wanted, read_request
from moorage_worker.engines.image_files import decode_image
from moorage_worker.engines.media import Media
from moorage_worker.engines.no_tensors import NoTensors
from moorage_worker.errors import BadInput, Cancelled
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.model_layout import IMAGE_TO_IMAGE, TEXT_TO_VIDEO

# The part of a run that its steps are; the rest is decoding and writing the files.
_STEPS_SHARE = 0.95
# Some schedulers cannot do with one.
_WARM_UP_STEPS = 2
# Video models compress time by 4 or 8, and want one frame more than a multiple of that.
_WARM_UP_FRAMES = 9
_USUAL_MULTIPLE = 8  # of width and height, where the pipeline does not say

# Arguments of a pipeline: torch and Pillow objects, texts, numbers and a callback.
Arguments = dict[str, Any]


def describe_call(pipeline: DiffusionPipeline) -> PipelineCall:
    """What the pipeline's own code says that it takes."""
    arguments = inspect.signature(type(pipeline).__call__).parameters
    steps = arguments["num_inference_steps"].default if "num_inference_steps" in arguments else 0
    strength = arguments["strength"].default if "strength" in arguments else 1.0
    factors = (getattr(pipeline, name, None) for name in ("vae_scale_factor", "vae_scale_factor_spatial"))
    return PipelineCall(
        frozenset(arguments),
        default_steps=steps if isinstance(steps, int) else 0,
        default_strength=strength if isinstance(strength, float) else 1.0,
        multiple=next(filter(None, factors), _USUAL_MULTIPLE),
    )


class PipelineEngine(NoTensors):
    """Answers a prompt with a list of pictures or one video, a list of prompts with a list of such."""

    def __init__(self, task: str, pipeline: DiffusionPipeline) -> None:
        self.task = task
        self._pipeline = pipeline
        self._call = describe_call(pipeline)
        # A pipeline keeps the state of its run in itself and in its scheduler.
        self._one_at_a_time = threading.Lock()

    def warm_up(self) -> None:
        """At the size that the first caller is likely to ask for, so that lack of memory shows now."""
        parameters: dict[str, Json] = {"num_inference_steps": _WARM_UP_STEPS}
        wanted = {"num_frames": _WARM_UP_FRAMES} if self.task == TEXT_TO_VIDEO else {}
        parameters |= {name: value for name, value in wanted.items() if name in self._call.takes}
        if self.task == IMAGE_TO_IMAGE:
            parameters["strength"] = 1.0
            self.infer({"image": _blank_picture(), "prompt": "warm up"}, self._known(parameters))
        else:
            self.infer("warm up", self._known(parameters))

    def _known(self, parameters: Mapping[str, Json]) -> JsonObject:
        return {name: value for name, value in parameters.items() if name in self._call.takes}

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        wanted = read_request(self.task, self._call, inputs, parameters)
        arguments = self._arguments(wanted)
        with self._one_at_a_time, torch.inference_mode():
            if run.cancelled:
                raise Cancelled
            arguments |= self._watching(run, wanted)
            result = self._pipeline(**arguments)
        answer = self._files(result, wanted)
        run.progress(1.0, "done")
        return answer

    def _arguments(self, wanted: Wanted) -> Arguments:
        texts = wanted.prompts.texts
        negative = wanted.negative_prompt
        given = {
            "prompt": texts,
            "negative_prompt": None if negative is None else [negative] * len(texts),
            "num_images_per_prompt": wanted.images_per_prompt,
            "width": wanted.width,
            "height": wanted.height,
            "num_inference_steps": wanted.steps,
            "guidance_scale": wanted.guidance_scale,
            "generator": _generators(wanted.seed, len(texts) * wanted.images_per_prompt),
            "strength": wanted.strength,
            "num_frames": wanted.frames,
            "frame_rate": wanted.fps,
            "output_type": "pil",
        }
        if wanted.prompts.image is not None:
            image = _input_picture(wanted, self._call.multiple)
            given |= {"image": image, "width": image.width, "height": image.height}
        takes = self._call.takes
        return {name: value for name, value in given.items() if name in takes and value is not None}

    def _watching(self, run: Run, wanted: Wanted) -> Arguments:
        """The arguments that have the pipeline look at `run` after each step."""
        expected = wanted.steps or self._call.default_steps

        def look(step: int) -> None:
            if run.cancelled:
                raise Cancelled
            # A picture as a start leaves out the first steps, and the pipeline knows how many are left.
            known = getattr(self._pipeline, "num_timesteps", None) or expected
            total = max(known, step + 1)
            run.progress(_STEPS_SHARE * (step + 1) / total, f"step {step + 1} of {total}")

        def after_step(_pipeline: object, step: int, _time: object, tensors: Arguments) -> Arguments:
            look(step)
            return tensors

        if "callback_on_step_end" in self._call.takes:
            return {"callback_on_step_end": after_step}
        if {"callback", "callback_steps"} <= self._call.takes:
            return {"callback": lambda step, _time, _latents: look(step), "callback_steps": 1}
        return {}

    def _files(self, result: Any, wanted: Wanted) -> object:
        if self.task == TEXT_TO_VIDEO:
            videos = [mp4(frames, wanted.fps) for frames in result.frames]
            return videos[0] if wanted.prompts.single else videos
        images = [png(image) for image in result.images]
        per_prompt = wanted.images_per_prompt
        groups: list[list[Media]] = [images[i : i + per_prompt] for i in range(0, len(images), per_prompt)]
        return groups[0] if wanted.prompts.single else groups


def _generators(seed: int | None, count: int) -> torch.Generator | list[torch.Generator]:
    """One for each picture, with seeds that count up: the second picture of seed 7 is the first of seed 8.

    On the CPU, whatever the device: so a seed means the same noise everywhere.
    """
    first = random.SystemRandom().randrange(2**32) if seed is None else seed
    generators = [torch.Generator("cpu").manual_seed((first + i) % (MAX_SEED + 1)) for i in range(count)]
    return generators if count > 1 else generators[0]


def _input_picture(wanted: Wanted, multiple: int) -> Image.Image:
    """The picture as the pipeline takes it: RGB, of the size asked for, else of its own, rounded down."""
    field = "inputs.image"
    image = decode_image(wanted.prompts.image or "", field).convert("RGB")
    width = wanted.width or image.width // multiple * multiple
    height = wanted.height or image.height // multiple * multiple
    if not (multiple <= width <= MAX_SIDE and multiple <= height <= MAX_SIDE):
        raise BadInput(
            field,
            "size",
            f"must be {multiple} to {MAX_SIDE} pixels each way, got {image.width}x{image.height}; "
            "or give width and height to scale it to",
        )
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


def _blank_picture() -> str:
    return base64.b64encode(png(Image.new("RGB", (256, 256))).data).decode("ascii")
