"""The diffusers engine on tiny random pipelines: what comes out, what is told on the way, what is refused."""

from __future__ import annotations

import base64
import io
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.engines.media import Media
from moorage_worker.errors import BadInput, Cancelled, LoadFailed
from moorage_worker.model_folder import ModelFolder

if TYPE_CHECKING:
    from moorage_worker.engines.base import Engine

_MISSING = [name for name in ("torch", "diffusers", "transformers", "av") if find_spec(name) is None]
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


class Watcher:
    """A run that keeps what it was told, and is cancelled after `stop_after` steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[tuple[float, str]] = []
        self._stop_after = stop_after

    def progress(self, done: float, what: str) -> None:
        self.told.append((done, what))

    @property
    def cancelled(self) -> bool:
        return self._stop_after is not None and len(self.told) >= self._stop_after


def load(folder: Path, task: str | None = None, **options: Any) -> Engine:  # fields of LoadOptions
    from moorage_worker.engines.diffusers.loader import load as load_pipeline

    return load_pipeline(ModelFolder(folder), LoadOptions(task, threads=1, **options))


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker_harness.tiny_torch import tiny_diffusion

    return tiny_diffusion(tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def painter(diffusion: Path) -> Engine:
    return load(diffusion)


@pytest.fixture(scope="module")
def repainter(diffusion: Path) -> Engine:
    return load(diffusion, "image-to-image")


@pytest.fixture(scope="module")
def filmer(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    from worker_harness.tiny_torch import tiny_video

    return load(tiny_video(tmp_path_factory.mktemp("video")))


def pictures(engine: Engine, inputs: Any, run: Any = None, **parameters: Any) -> Any:
    """Answers of a few steps."""
    asked = {"num_inference_steps": 2, **parameters}
    return engine.infer(inputs, asked) if run is None else engine.infer(inputs, asked, run)


def decoded(media: Media) -> Image.Image:
    return Image.open(io.BytesIO(media.data))


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def test_a_prompt_gives_pictures_of_the_size_asked_for(painter: Engine) -> None:
    assert painter.task == "text-to-image"
    answer = pictures(painter, "a cat", width=48, height=24, num_images=2)
    assert [(media.content_type, media.width, media.height) for media in answer] == [
        ("image/png", 48, 24)
    ] * 2
    assert [decoded(media).size for media in answer] == [(48, 24)] * 2


def test_a_list_of_prompts_gives_a_list_for_each(painter: Engine) -> None:
    answer = pictures(painter, ["a cat", {"prompt": "a dog"}], seed=1)
    assert [len(group) for group in answer] == [1, 1]
    assert answer[0][0].data != answer[1][0].data


def test_a_seed_decides_every_byte(painter: Engine) -> None:
    [first] = pictures(painter, "a cat", seed=7)
    [again] = pictures(painter, "a cat", seed=7)
    [other] = pictures(painter, "a cat", seed=8)
    assert first.data == again.data
    assert first.data != other.data
    assert pictures(painter, "a cat")[0].data != pictures(painter, "a cat")[0].data


def test_parameters_reach_the_pipeline(painter: Engine) -> None:
    [plain] = pictures(painter, "a cat", seed=7)
    for changed in ({"negative_prompt": "a dog"}, {"guidance_scale": 3.0}, {"num_inference_steps": 4}):
        assert pictures(painter, "a cat", seed=7, **changed)[0].data != plain.data, changed


def test_progress_rises_to_the_end(painter: Engine) -> None:
    run = Watcher()
    pictures(painter, "a cat", run, num_inference_steps=4)
    shares = [done for done, _ in run.told]
    assert [what for _, what in run.told] == [*(f"step {i} of 4" for i in range(1, 5)), "done"]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0


def test_a_cancelled_run_stops_between_steps_and_leaves_the_engine_usable(painter: Engine) -> None:
    run = Watcher(stop_after=2)
    with pytest.raises(Cancelled):
        pictures(painter, "a cat", run, num_inference_steps=50)
    assert len(run.told) == 2
    assert pictures(painter, "a cat")[0].width == 32
    never = Watcher(stop_after=0)
    with pytest.raises(Cancelled):
        pictures(painter, "a cat", never)
    assert never.told == []


@pytest.mark.parametrize(
    ("inputs", "parameters", "field", "rule"),
    [
        (4, {}, "inputs", "type"),
        (" ", {}, "inputs", "empty"),
        ([], {}, "inputs", "size"),
        (["a", {"text": "b"}], {}, "inputs[1].text", "unknown"),
        ("a", {"width": 33}, "parameters.width", "multiple"),
        ("a", {"height": 100_000}, "parameters.height", "range"),
        ("a", {"num_inference_steps": 0}, "parameters.num_inference_steps", "range"),
        ("a", {"seed": -1}, "parameters.seed", "range"),
        ("a", {"guidance_scale": "high"}, "parameters.guidance_scale", "range"),
        ("a", {"negative_prompt": 1}, "parameters.negative_prompt", "type"),
        (["a"] * 9, {"num_images": 2}, "parameters.num_images", "range"),
        ("a", {"num_frames": 8}, "parameters.num_frames", "unknown"),
    ],
)
def test_bad_requests_name_the_field_and_the_rule(
    painter: Engine, inputs: Any, parameters: dict[str, Any], field: str, rule: str
) -> None:
    with pytest.raises(BadInput) as caught:
        painter.infer(inputs, parameters)
    assert (caught.value.field, caught.value.rule) == (field, rule)


def test_a_picture_is_the_start_of_another(repainter: Engine) -> None:
    red = encoded(Image.new("RGB", (41, 33), "red"))
    inputs = {"image": f"data:image/png;base64,{red}", "prompt": "a cat"}
    [weak] = pictures(repainter, inputs, seed=1, strength=0.25, num_inference_steps=4)
    [strong] = pictures(repainter, inputs, seed=1, strength=1.0, num_inference_steps=4)
    assert decoded(weak).size == (40, 32)  # rounded down to what the pipeline can make
    assert weak.data != strong.data
    [scaled] = pictures(repainter, inputs, width=64, height=16)
    assert decoded(scaled).size == (64, 16)


def test_progress_counts_the_steps_that_are_left_to_do(repainter: Engine) -> None:
    run, image = Watcher(), encoded(Image.new("RGB", (32, 32)))
    pictures(repainter, {"image": image, "prompt": "a"}, run, strength=0.5, num_inference_steps=4)
    assert [what for _, what in run.told] == ["step 1 of 2", "step 2 of 2", "done"]


@pytest.mark.parametrize(
    ("inputs", "parameters", "field", "rule"),
    [
        ("a cat", {}, "inputs", "type"),
        ({"prompt": "a"}, {}, "inputs.image", "required"),
        ({"image": "aGk="}, {}, "inputs.prompt", "required"),
        ({"image": "http://127.0.0.1/x.png", "prompt": "a"}, {}, "inputs.image", "encoding"),
        ({"image": "aGVsbG8=", "prompt": "a"}, {}, "inputs.image", "format"),
        ({"image": encoded(Image.new("L", (2051, 8))), "prompt": "a"}, {}, "inputs.image", "size"),
        ({"image": "", "prompt": "a"}, {"strength": 0.1}, "parameters.strength", "range"),
    ],
)
def test_bad_pictures_name_the_field_and_the_rule(
    repainter: Engine, inputs: Any, parameters: dict[str, Any], field: str, rule: str
) -> None:
    with pytest.raises(BadInput) as caught:
        repainter.infer(inputs, {"num_inference_steps": 2, **parameters})
    assert (caught.value.field, caught.value.rule) == (field, rule)


def test_a_prompt_gives_a_video_that_plays(filmer: Engine) -> None:
    import av

    assert filmer.task == "text-to-video"
    run = Watcher()
    video = pictures(filmer, "a cat", run, num_frames=5, width=48, height=32, fps=10, seed=1)
    assert (video.content_type, video.width, video.height, video.frames) == ("video/mp4", 48, 32, 5)
    with av.open(io.BytesIO(video.data)) as container:
        [stream] = container.streams
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 10)
        assert [(frame.width, frame.height) for frame in container.decode(stream)] == [(48, 32)] * 5
    assert [what for _, what in run.told] == ["step 1 of 2", "step 2 of 2", "done"]


def test_a_seed_decides_the_frames_of_a_video(filmer: Engine) -> None:
    def frames(seed: int) -> Any:  # [frames, height, width, colours]
        import av

        video = pictures(filmer, "a cat", num_frames=5, seed=seed)
        with av.open(io.BytesIO(video.data)) as container:
            return np.stack([f.to_ndarray(format="rgb24").astype(float) for f in container.decode(video=0)])

    first = frames(1)
    # What the lossy encoder may add is far below what another seed changes.
    assert np.abs(first - frames(1)).mean() < 1 < np.abs(first - frames(2)).mean() / 4


def test_what_a_pipeline_does_not_take_is_refused_by_name(filmer: Engine) -> None:
    with pytest.raises(BadInput) as caught:
        filmer.infer("a cat", {"num_images": 2})
    assert (caught.value.field, caught.value.rule) == ("parameters.num_images", "unknown")


@pytest.mark.parametrize("task", ["text-to-image", "image-to-image"])
def test_warm_up_runs_the_whole_way(task: str, painter: Engine, repainter: Engine, filmer: Engine) -> None:
    engine = {"text-to-image": painter, "image-to-image": repainter}[task]
    engine.warm_up()
    filmer.warm_up()


def test_a_load_tells_how_far_it_is(diffusion: Path) -> None:
    told: list[float] = []
    load(diffusion, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_half_a_folder_is_refused_by_what_is_missing(diffusion: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(diffusion, half)
    (half / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(LoadFailed, match=r"names unet, and not all files"):
        load(half)
    shutil.rmtree(half / "tokenizer")
    with pytest.raises(LoadFailed, match=r"names tokenizer, unet"):
        load(half)
    (half / "model_index.json").unlink()
    with pytest.raises(LoadFailed, match=r"needs model_index\.json"):
        load(half)


def test_a_broken_file_and_a_wrong_task_are_told(diffusion: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(diffusion, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(LoadFailed, match="cannot be loaded by diffusers"):
        load(broken)
    with pytest.raises(LoadFailed, match="makes pictures, so it does not serve text-to-video"):
        load(diffusion, "text-to-video")
    with pytest.raises(LoadFailed, match="does not serve text-classification"):
        load(diffusion, "text-classification")


def test_a_variant_alone_in_a_folder_is_found(diffusion: Path, tmp_path: Path) -> None:
    halved = tmp_path / "halved"
    shutil.copytree(diffusion, halved)
    for path in list(halved.rglob("*.safetensors")):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert (
        pictures(load(halved), "a cat", seed=3)[0].data == pictures(load(diffusion), "a cat", seed=3)[0].data
    )
