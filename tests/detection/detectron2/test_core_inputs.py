"""A core leaves to Detectron2 what it would answer otherwise than Detectron2 does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_detectron2 import picture, small_detector

import fxtrt

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]


@pytest.fixture
def compiled() -> torch.nn.Module:
    inputs = [{"image": picture(160, 192)}]
    model = small_detector("Faster R-CNN")
    return fxtrt.compile(model, (inputs,), engine="reference", cache_dir=None)


def test_results_of_an_image_that_requires_grad_have_gradients(compiled: Any) -> None:
    image = picture(160, 192).requires_grad_()
    scores = compiled([{"image": image}])[0]["instances"].scores
    (gradient,) = torch.autograd.grad(scores.sum(), image)
    assert gradient.abs().sum() > 0


def test_an_image_of_four_dimensions_is_refused_as_by_detectron2(compiled: Any) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="3D"):
        compiled([{"image": picture(160, 192)[None]}])
