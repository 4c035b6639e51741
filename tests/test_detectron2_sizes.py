"""Detectron2's architectures take images of any size in one graph (`-m detectron2`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from small_detectron2 import ARCHITECTURES, picture, small_detector
from test_detectron2_whole import assert_close

import fxtrt

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

SIZES = ((192, 160), (130, 131), (160, 160), (180, 300))


@cache
def compiled(architecture: str) -> Any:
    """For one image, of 160x192."""
    example = [{"image": picture(160, 192), "height": 200, "width": 240}]
    return fxtrt.compile(small_detector(architecture), (example,), engine="reference")


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def skip_where_unknown(architecture: str) -> None:
    require_detectron2()
    if architecture == "FCOS" and find_spec("detectron2.modeling.meta_arch.fcos") is None:
        pytest.skip("Detectron2 0.4 has no FCOS")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_and_pictures_of_any_size(architecture: str) -> None:
    skip_where_unknown(architecture)
    model, fast = small_detector(architecture), compiled(architecture)
    assert fxtrt.report(fast).flops_share == 1.0
    for number, (height, width) in enumerate(SIZES):
        image = picture(height, width)
        for one in (image, torch.full_like(image, torch.nan)):
            call = [{"image": one, "height": 97 + 50 * number, "width": 2 * width}]
            expected = model(call)
            if architecture != "Semantic FPN":
                assert (len(expected[0]["instances"]) > 0) == (one is image)
            assert_close(fast(call), expected)
    assert fast.forward.fallbacks == {}
