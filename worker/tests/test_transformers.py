"""The transformers engine on tiny random models, and its readers of requests."""

from __future__ import annotations

import base64
import io
import math
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.errors import BadInput, Cancelled, LoadFailed
from moorage_worker.model_folder import ModelFolder

if TYPE_CHECKING:
    from moorage_worker.engines.base import Engine

_MISSING = [name for name in ("torch", "transformers", "diffusers", "scipy") if find_spec(name) is None]
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


class Watcher:
    """A run that keeps what it was told, and is cancelled after `stop_after` reports."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[tuple[float, str]] = []
        self._stop_after = stop_after

    def progress(self, done: float, what: str) -> None:
        self.told.append((done, what))

    @property
    def cancelled(self) -> bool:
        return self._stop_after is not None and len(self.told) >= self._stop_after


def load(folder: Path, task: str | None = None) -> Engine:
    from moorage_worker.engines.transformers.loader import load as load_model

    engine = load_model(ModelFolder(folder), LoadOptions(task, threads=1))
    engine.warm_up()
    return engine


def refused(engine: Engine, inputs: Any, parameters: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(BadInput) as caught:
        engine.infer(inputs, parameters)
    return caught.value.field, caught.value.rule


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    from worker_harness.tiny_torch import tiny_text_classifier

    return load(tiny_text_classifier(tmp_path_factory.mktemp("classifier")))


@pytest.fixture(scope="module")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker_harness.tiny_torch import tiny_text_generator

    return tiny_text_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def generator(generator_folder: Path) -> Engine:
    return load(generator_folder)


def test_texts_get_the_scores_of_the_model_itself(classifier: Engine) -> None:
    import torch
    from worker_harness.tiny_torch import LABELS, WORDS

    assert classifier.task == "text-classification"
    answer: Any = classifier.infer("the cat is good", {})
    ids = torch.tensor([[WORDS.index(word) for word in ["the", "cat", "is", "good"]]])
    model = classifier._model  # type: ignore[attr-defined]  # judged by what it holds
    with torch.inference_mode():
        expected = model(input_ids=ids).logits.softmax(-1)[0].tolist()
    assert {row["label"]: row["score"] for row in answer} == pytest.approx(
        dict(zip(LABELS, expected, strict=True)), abs=1e-5
    )
    assert [row["score"] for row in answer] == sorted((row["score"] for row in answer), reverse=True)


def test_a_text_scores_alike_alone_and_among_longer_ones(classifier: Engine) -> None:
    texts: list[Any] = [
        "good",
        "the cat is very good and the dog is bad",
        {"text": "cat", "text_pair": "dog"},
    ] * 20
    run = Watcher()
    together: Any = classifier.infer(texts, {}, run)
    for text, rows in zip(texts[:3], together, strict=False):
        alone: Any = classifier.infer(text, {})
        assert [row["label"] for row in rows] == [row["label"] for row in alone]
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in alone], abs=1e-5)
    assert [done for done, _ in run.told] == [pytest.approx(32 / 60), 1.0]


def test_long_texts_are_cut_and_bad_ones_refused(classifier: Engine) -> None:
    assert classifier.infer("cat " * 100, {}) == classifier.infer("cat " * 16, {})
    assert classifier.infer("cat", {"top_k": 1}) == classifier.infer("cat", {})[:1]  # type: ignore[index]
    assert refused(classifier, {"text": 4}, {}) == ("inputs.text", "type")
    assert refused(classifier, "cat", {"seed": 1}) == ("parameters.seed", "unknown")
    with pytest.raises(Cancelled):
        classifier.infer("cat", {}, Watcher(stop_after=0))


def test_generation_is_greedy_at_zero_and_counts_its_tokens(generator: Engine) -> None:
    import torch
    from worker_harness.tiny_torch import WORDS

    answer: Any = generator.infer("the cat is", {"max_new_tokens": 8, "temperature": 0})
    ids = [WORDS.index(word) for word in ("the", "cat", "is")]
    model = generator._model  # type: ignore[attr-defined]  # judged by what it holds
    with torch.inference_mode():
        while len(ids) < 11 and ids[-1] != WORDS.index("[END]"):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    made = [WORDS[i] for i in ids[3:]]
    assert answer["generated_text"].split() == [word for word in made if not word.startswith("[")]
    assert answer["finish_reason"] == ("stop" if made[-1] == "[END]" else "length")
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": len(made),
        "total_tokens": 3 + len(made),
    }


def test_without_a_wish_as_much_is_written_as_fits(generator: Engine) -> None:
    for prompt in ("cat " * 63, "cat " * 60):
        answer: Any = generator.infer(prompt, {"temperature": 0})
        assert 0 < answer["usage"]["completion_tokens"] <= 64 - len(prompt.split())


def test_a_seed_decides_what_is_sampled(generator: Engine) -> None:
    def texts(**parameters: Any) -> list[str]:
        asked = {"max_new_tokens": 12, "temperature": 3.0, **parameters}
        answers: Any = generator.infer(["the cat", "the dog"] * 4, asked)
        return [answer["generated_text"] for answer in answers]

    assert texts(seed=1) == texts(seed=1)
    assert texts(seed=1) != texts(seed=2)
    assert texts() != texts()
    assert texts(seed=1, top_k=1) == texts(seed=2, top_k=1)
    assert texts(seed=1, top_p=0.0001) == texts(seed=2, top_p=0.0001)


def seed_of_length(generator: Engine, tokens: int) -> int:
    """A seed with which the random model does not end before so many tokens."""
    for seed in range(100):
        asked = {"max_new_tokens": 40, "temperature": 5.0, "seed": seed}
        answer: Any = generator.infer("the cat", asked)
        if answer["usage"]["completion_tokens"] >= tokens:
            return seed
    raise AssertionError("no such seed")


def test_a_stop_string_ends_the_text_before_it(generator: Engine) -> None:
    asked = {"max_new_tokens": 40, "temperature": 5.0, "seed": seed_of_length(generator, 10)}
    whole: Any = generator.infer("the cat", asked)
    words = whole["generated_text"].split()
    stop = f"{words[2]} {words[3]}"  # over a border of tokens
    cut: Any = generator.infer("the cat", {**asked, "stop": [stop, "never"]})
    assert cut["generated_text"] == whole["generated_text"].partition(stop)[0]
    assert cut["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]


def test_a_chat_is_put_through_the_template(generator: Engine) -> None:
    asked = {"max_new_tokens": 4, "temperature": 0}
    chat: Any = {
        "messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "is good"}]
    }
    assert generator.infer(chat, asked) == generator.infer("the cat is good the", asked)
    system = {"messages": [{"role": "system", "content": "be"}]}
    assert refused(generator, system, {}) == ("inputs.messages", "template")


def test_a_model_without_a_template_takes_no_chat(tmp_path: Path) -> None:
    from worker_harness.tiny_torch import tiny_text_generator

    engine = load(tiny_text_generator(tmp_path, chat=False))
    chat = {"messages": [{"role": "user", "content": "cat"}]}
    assert refused(engine, chat, {}) == ("inputs.messages", "template")


def test_progress_counts_tokens_and_a_cancelled_generation_stops(generator: Engine) -> None:
    asked = {"max_new_tokens": 40, "temperature": 5.0, "seed": seed_of_length(generator, 10)}
    run = Watcher()
    generator.infer("the cat", asked, run)
    shares = [done for done, _ in run.told]
    assert run.told[0] == (1 / 40, "token 1 of at most 40")
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    stopped = Watcher(stop_after=2)
    with pytest.raises(Cancelled):
        generator.infer("the cat", asked, stopped)
    assert len(stopped.told) == 2 < len(run.told)


@pytest.mark.parametrize(
    ("inputs", "parameters", "field", "rule"),
    [
        ("cat", {"max_new_tokens": 0}, "parameters.max_new_tokens", "range"),
        ("cat", {"max_new_tokens": 64}, "inputs", "length"),
        ("cat " * 64, {}, "inputs", "length"),
        ("cat", {"temperature": -1}, "parameters.temperature", "range"),
        ("cat", {"top_p": 0}, "parameters.top_p", "range"),
        ("cat", {"stop": 4}, "parameters.stop", "type"),
        ("cat", {"stop": ["a"] * 17}, "parameters.stop", "size"),
        (["cat", 4], {}, "inputs[1]", "type"),
        ({"messages": []}, {}, "inputs.messages", "size"),
        ({"messages": [{"role": "cat", "content": "a"}]}, {}, "inputs.messages[0].role", "choice"),
        ({"messages": [{"role": "user"}]}, {}, "inputs.messages[0].content", "type"),
        ({"messages": [], "text": "a"}, {}, "inputs.text", "unknown"),
    ],
)
def test_bad_requests_name_the_field_and_the_rule(
    generator: Engine, inputs: Any, parameters: dict[str, Any], field: str, rule: str
) -> None:
    assert refused(generator, inputs, parameters) == (field, rule)


def wav(samples: Any, rate: int = 16_000, channels: int = 1, width: int = 2) -> str:
    """Base64 of a WAV file with floats from -1 to 1, channel after channel in each moment."""
    wide = np.clip(np.round(np.asarray(samples) * 2 ** (8 * width - 1)), -(2 ** (8 * width - 1)), None)
    whole = np.minimum(wide, 2 ** (8 * width - 1) - 1).astype("<i8") + (128 if width == 1 else 0)
    data = whole.reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(data)
    return base64.b64encode(file.getvalue()).decode("ascii")


def tone(rate: int, seconds: float = 1.0) -> Any:
    return 0.5 * np.sin(2 * math.pi * 440 * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width_are_the_same_sound(width: int) -> None:
    from moorage_worker.engines.transformers.wav import decode_wav

    sound = decode_wav(wav(tone(16_000), width=width), "inputs", 16_000)
    assert sound.dtype == np.float32
    assert np.abs(sound - tone(16_000)).max() < 2 ** (2 - 8 * width) + 1e-6


def test_channels_are_averaged_and_other_rates_resampled() -> None:
    from moorage_worker.engines.transformers.wav import decode_wav

    both = np.stack([tone(44_100), np.zeros(44_100)], axis=1).ravel()
    sound = decode_wav("data:audio/wav;base64," + wav(both, rate=44_100, channels=2), "inputs", 16_000)
    assert sound.shape == (16_000,)
    # The ends ring, as with every filter.
    assert np.abs(sound - tone(16_000) / 2)[200:-200].max() < 0.01


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    from worker_harness.tiny_torch import tiny_labeller_of_sound

    return load(tiny_labeller_of_sound(tmp_path_factory.mktemp("listener")))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    from worker_harness.tiny_torch import tiny_whisper

    return load(tiny_whisper(tmp_path_factory.mktemp("whisper")))


def test_sound_becomes_text_whatever_its_rate(listener: Engine) -> None:
    assert listener.task == "automatic-speech-recognition"
    noise = np.random.default_rng(1).normal(size=16_000) / 8
    answer: Any = listener.infer({"audio": wav(noise)}, {})
    assert len(answer["text"]) > 3
    assert listener.infer(wav(noise), {}) == answer
    assert listener.infer(wav(np.stack([noise, noise], axis=1).ravel(), channels=2), {}) == answer


def test_a_writing_model_writes_as_much_as_it_may(whisper: Engine) -> None:
    run = Watcher()
    answer: Any = whisper.infer(wav(tone(16_000)), {"max_new_tokens": 5}, run)
    assert 0 < len(answer["text"]) <= 5
    assert [done for done, _ in run.told] == [0.0, 1.0]
    with pytest.raises(Cancelled):
        whisper.infer(wav(tone(16_000)), {}, Watcher(stop_after=1))


@pytest.mark.parametrize(
    ("inputs", "parameters", "field", "rule"),
    [
        (4, {}, "inputs", "type"),
        ({}, {}, "inputs.audio", "required"),
        ({"audio": "", "url": ""}, {}, "inputs.url", "unknown"),
        ("http://127.0.0.1/a.wav", {}, "inputs", "encoding"),
        ("aGVsbG8=", {}, "inputs", "format"),
        (wav([]), {}, "inputs", "size"),
        (wav(tone(2_000), rate=2_000), {}, "inputs", "rate"),
        (wav(tone(16_000)), {"max_new_tokens": 5}, "parameters.max_new_tokens", "unknown"),
    ],
)
def test_bad_sounds_name_the_field_and_the_rule(
    listener: Engine, inputs: Any, parameters: dict[str, Any], field: str, rule: str
) -> None:
    assert refused(listener, inputs, parameters) == (field, rule)


def test_half_a_folder_and_a_wrong_task_are_told(generator_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"needs config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text((generator_folder / "config.json").read_text())
    with pytest.raises(LoadFailed, match=r"cannot be loaded by transformers: .*model\.safetensors"):
        load(tmp_path)
    with pytest.raises(LoadFailed, match="serves text-classification, text-generation"):
        load(generator_folder, "text-to-image")


def test_weights_that_are_not_there_are_not_made_up(generator_folder: Path) -> None:
    with pytest.raises(LoadFailed, match=r"lack 1 of the weights .* score\.weight"):
        load(generator_folder, "text-classification")
