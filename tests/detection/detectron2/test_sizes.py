"""Detectron2's architectures take images of any size in one graph (`-m detectron2`)."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from detection_limits import assert_close
from detectron2_package import require_detectron2
from small_detectron2 import ARCHITECTURES, picture, small_detector

import fxtrt

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

SIZES = ((192, 160), (130, 131), (180, 300))


HEIGHTS, WIDTHS = (160, 130, 192, 144), (150, 192, 133, 180, 160)


@cache
def compiled(architecture: str) -> Any:
    """For one image, of 160x192."""
    example = [{"image": picture(160, 192), "height": 200, "width": 240}]
    return fxtrt.compile(small_detector(architecture), (example,), engine="reference")


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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_number_of_images_of_different_sizes(architecture: str) -> None:
    skip_where_unknown(architecture)
    model, fast = small_detector(architecture), compiled(architecture)
    fast.forward.fallbacks.clear()
    for count in (3, 8):
        call: list[dict[str, Any]] = [
            {"image": picture(HEIGHTS[i % 4], WIDTHS[i % 5]), "height": 60 + i, "width": 90}
            for i in range(count)
        ]
        call[1]["image"] = torch.full_like(call[1]["image"], torch.nan)
        assert_close(fast(call), model(call))
    assert fast.forward.fallbacks == {}
