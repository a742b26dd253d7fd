"""Reads a request to a diffusers pipeline. Pure: what the pipeline takes is passed in, as names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from moorage_worker.engines.parameters import Parameters
from moorage_worker.errors import BadInput
from moorage_worker.json_types import Json, JsonObject, kind
from moorage_worker.model_layout import IMAGE_TO_IMAGE, TEXT_TO_IMAGE, TEXT_TO_VIDEO

MAX_PROMPTS = 16
MAX_IMAGES = 16  # of one request, all prompts together
MAX_PROMPT_LENGTH = 10_000
MIN_SIDE, MAX_SIDE = 16, 2048
MAX_STEPS = 500
MAX_SEED = 2**63 - 1
MAX_FRAMES = 512
DEFAULT_FPS = 16

_COMMON = ("negative_prompt", "width", "height", "num_inference_steps", "guidance_scale", "seed")
_BY_TASK = {
    TEXT_TO_IMAGE: (*_COMMON, "num_images"),
    IMAGE_TO_IMAGE: (*_COMMON, "num_images", "strength"),
    TEXT_TO_VIDEO: (*_COMMON, "num_frames", "fps"),
}
# Parameters that the pipeline knows under another name, and those that are no business of the pipeline.
_ARGUMENTS = {"num_images": "num_images_per_prompt", "seed": "generator"}
_NOT_PASSED = ("fps",)


@dataclass(frozen=True, slots=True)
class PipelineCall:
    """What the call of a pipeline takes: argument names, some defaults, and what width and height must be a
    multiple of."""

    takes: frozenset[str]
    default_steps: int
    default_strength: float
    multiple: int


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a request. `single`: the caller sent one bare. `image` is the input picture, encoded."""

    texts: list[str]
    single: bool
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, checked. None: the pipeline's own default. `fps` is frames per second."""

    prompts: Prompts
    images_per_prompt: int = 1
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    strength: float | None = None
    frames: int | None = None
    fps: int = DEFAULT_FPS


def parameters_of(task: str, call: PipelineCall) -> tuple[str, ...]:
    """The parameters that this task takes with this pipeline."""

    def reaches(name: str) -> bool:
        # A picture that comes in is scaled before the pipeline sees it, whatever that takes.
        scaled = task == IMAGE_TO_IMAGE and name in ("width", "height")
        return scaled or name in _NOT_PASSED or _ARGUMENTS.get(name, name) in call.takes

    return tuple(name for name in _BY_TASK[task] if reaches(name))


def read_request(task: str, call: PipelineCall, inputs: Json, parameters: JsonObject) -> Wanted:
    """Check a request against the task and the pipeline. Raises BadInput naming the field and the rule."""
    names = parameters_of(task, call)
    for name in parameters:
        if name in _BY_TASK[task] and name not in names:
            known = ", ".join(names)
            raise BadInput(
                f"parameters.{name}",
                "unsupported",
                f"this pipeline does not take it (it takes: {known})",
            )
    asked = Parameters(parameters, names)
    prompts = _read_image_prompt(inputs) if task == IMAGE_TO_IMAGE else _read_prompts(inputs)
    wanted = Wanted(
        prompts,
        images_per_prompt=asked.whole("num_images", 1, MAX_IMAGES) or 1,
        negative_prompt=asked.text("negative_prompt", MAX_PROMPT_LENGTH),
        width=_side(asked, "width", call.multiple),
        height=_side(asked, "height", call.multiple),
        steps=asked.whole("num_inference_steps", 1, MAX_STEPS),
        guidance_scale=asked.number("guidance_scale", 0.0, 100.0),
        seed=asked.whole("seed", 0, MAX_SEED),
        strength=asked.number("strength", 0.0, 1.0),
        frames=asked.whole("num_frames", 1, MAX_FRAMES),
        fps=asked.whole("fps", 1, 120) or DEFAULT_FPS,
    )
    _check_together(wanted, call)
    return wanted


def _side(asked: Parameters, name: str, multiple: int) -> int | None:
    side = asked.whole(name, MIN_SIDE, MAX_SIDE)
    if side is not None and side % multiple:
        raise BadInput(f"parameters.{name}", "multiple", f"must be a multiple of {multiple}, got {side}")
    return side


def _check_together(wanted: Wanted, call: PipelineCall) -> None:
    count = len(wanted.prompts.texts) * wanted.images_per_prompt
    if count > MAX_IMAGES:
        raise BadInput(
            "parameters.num_images",
            "range",
            f"asks for {count} pictures in all, at most {MAX_IMAGES}",
        )
    if wanted.prompts.image is not None:
        steps = wanted.steps or call.default_steps
        strength = call.default_strength if wanted.strength is None else wanted.strength
        if int(steps * strength) < 1:
            raise BadInput(
                "parameters.strength",
                "range",
                f"{strength:g} of {steps} steps leaves none to do: raise it, or num_inference_steps",
            )


def _read_prompts(inputs: Json) -> Prompts:
    if not isinstance(inputs, list):
        return Prompts([_prompt(inputs, "inputs")], single=True)
    if not 1 <= len(inputs) <= MAX_PROMPTS:
        raise BadInput("inputs", "size", f"must hold 1 to {MAX_PROMPTS} prompts, got {len(inputs)}")
    return Prompts([_prompt(item, f"inputs[{i}]") for i, item in enumerate(inputs)], single=False)


def _read_image_prompt(inputs: Json) -> Prompts:
    if not isinstance(inputs, dict):
        raise BadInput("inputs", "type", f"must be an object with image and prompt, got {kind(inputs)}")
    _refuse_unknown(inputs, ("image", "prompt"), "inputs")
    if "image" not in inputs:
        raise BadInput("inputs.image", "required", "is missing: base64 or a data URL of a PNG or JPEG file")
    image = inputs["image"]
    if not isinstance(image, str):
        raise BadInput("inputs.image", "type", f"must be a base64 string, got {kind(image)}")
    text = _prompt({"prompt": inputs["prompt"]} if "prompt" in inputs else {}, "inputs")
    return Prompts([text], single=True, image=image)


def _prompt(value: Json, field: str) -> str:
    if isinstance(value, dict):
        _refuse_unknown(value, ("prompt",), field)
        if "prompt" not in value:
            raise BadInput(f"{field}.prompt", "required", "is missing")
        value, field = value["prompt"], f"{field}.prompt"
    if not isinstance(value, str):
        raise BadInput(field, "type", f"must be a string, got {kind(value)}")
    if not value.strip():
        raise BadInput(field, "empty", "must not be empty")
    if len(value) > MAX_PROMPT_LENGTH:
        raise BadInput(field, "size", f"must have at most {MAX_PROMPT_LENGTH} characters")
    return value


def _refuse_unknown(given: JsonObject, known: Collection[str], field: str) -> None:
    for name in given:
        if name not in known:
            raise BadInput(f"{field}.{name}", "unknown", f"is not a field here (known: {', '.join(known)})")
