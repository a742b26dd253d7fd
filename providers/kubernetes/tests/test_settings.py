"""Settings are read once, and refused with the name of the one at fault."""

from __future__ import annotations

import pytest

from moorage_kubernetes.settings import label_value, own_version

from . import plans


def test_every_runtime_of_the_worker_has_an_image() -> None:
    images = plans.settings().images
    assert images["onnx"] == f"moorage/worker-onnx:{own_version()}"
    assert set(images) == {"diffusers", "onnx", "sentence-transformers", "transformers"}


def test_the_runtimes_own_image_wins() -> None:
    images = plans.settings(IMAGE="r/{engine}:1", IMAGE_SENTENCE_TRANSFORMERS="r/st:2").images
    assert (images["onnx"], images["sentence-transformers"]) == ("r/onnx:1", "r/st:2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NAMESPACE", "No"),
        ("CAPACITY_PATIENCE_SECONDS", "soon"),
        ("CAPACITY_PATIENCE_SECONDS", "-1"),
        ("CALL_SECONDS", "nan"),
        ("IMAGE", "an image"),
        ("IMAGE", "r/{runtime}"),
        ("IMAGE_ONNX", "a b"),
    ],
)
def test_a_setting_that_cannot_be_kept_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"MOORAGE_KUBERNETES_{name}"):
        plans.settings(**{name: value})


@pytest.mark.parametrize("text", ["", "a b", "x" * 64, "-a", "ä"])
def test_an_installation_that_cannot_be_a_label_is_told_by_a_digest(text: str) -> None:
    assert len(label_value(text)) == 32
    assert label_value("inst_tests") == "inst_tests"
