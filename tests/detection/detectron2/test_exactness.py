"""Detectors of five families find in 200 images exactly what eager finds, up to ties."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2_package import require_detectron2
from exactness import calls_of, compare_calls, pictures
from small_detectron2 import small_detector

import fxtrt

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.nightly,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

MANY = ("MODEL.RPN.POST_NMS_TOPK_TEST", 300, "TEST.DETECTIONS_PER_IMAGE", 50)
FAMILIES = ("Faster R-CNN", "Mask R-CNN", "Keypoint R-CNN", "Cascade R-CNN", "RetinaNet")


@pytest.mark.parametrize("most_images", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_200_images(family: str, most_images: int) -> None:
    require_detectron2()
    model = small_detector(family, MANY)
    images = list(pictures(200, 320, 384))
    fast = fxtrt.compile(
        copy.deepcopy(model),
        (images[:1],),
        engine="reference",
        precision="fp32",
        most_images=most_images,
        cache_dir=None,
    )
    with torch.no_grad():
        found = compare_calls(model, fast, calls_of(images))
    assert found.faults == []
    assert found.images == 200
    assert found.detections > 5000
    assert found.ties.total() < 0.01 * found.detections
    assert fast.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward
