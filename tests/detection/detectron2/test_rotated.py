"""Each equivalent for rotated boxes gives what Detectron2's function gives (`-m detectron2`)."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2_instances import assert_same
from detectron2_package import require_detectron2
from torch import Tensor

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

SIZES = [(40, 60), (64, 48)]
SMALLEST = (2.0, 1e6)
"""Sides; of the second nothing is left."""


@pytest.fixture
def rotated() -> Any:
    require_detectron2()
    names = (
        "detectron2.rotated",
        "ops.detectron2_batched_nms_rotated",
        "ops.detectron2_roi_align_rotated",
    )
    modules = [import_module(f"fxtrt.detection.{name}") for name in names]
    return SimpleNamespace(**{name: vars(m)[name] for m in modules for name in m.__all__})


def boxes_of(*shape: int) -> Tensor:
    """Each third one is almost upright, across the edges of an image too."""
    torch.manual_seed(0)
    centres, sides = torch.rand(*shape, 2) * 70 - 5, torch.rand(*shape, 2) * 30
    angles = (torch.rand(*shape, 1) - 0.5) * 720
    angles.view(-1)[::3] = torch.rand_like(angles.view(-1)[::3]) * 2 + 359
    return torch.cat([centres, sides, angles], -1)


@pytest.mark.parametrize("count", [0, 30])
def test_clip_equals_detectron2s(rotated: Any, count: int) -> None:
    from detectron2.structures import RotatedBoxes

    expected, actual = (RotatedBoxes(boxes_of(count)) for _ in range(2))
    expected.clip((40, 60))
    rotated.clip_rotated(actual, (40, 60))
    assert torch.equal(actual.tensor, expected.tensor)


def test_new_boxes_equal_detectron2s(rotated: Any) -> None:
    from detectron2.structures import RotatedBoxes

    for tensor in (boxes_of(3), torch.zeros(0), [], [[1, 2, 3, 4, 5]]):
        made = object.__new__(RotatedBoxes)
        rotated.new_rotated_boxes(made, tensor)
        assert torch.equal(made.tensor, RotatedBoxes(tensor).tensor)
        assert made.tensor.dtype == torch.float32


@pytest.mark.parametrize("smallest", SMALLEST)
def test_find_top_rrpn_proposals(rotated: Any, smallest: float) -> None:
    from detectron2.modeling.proposal_generator.rrpn import find_top_rrpn_proposals

    boxes = [boxes_of(2, count) for count in (200, 30)]
    scores = [torch.rand(one.shape[:2]) for one in boxes]
    arguments = (SIZES, 0.6, 50, 25, smallest, False)
    expected = find_top_rrpn_proposals([b.clone() for b in boxes], scores, *arguments)
    assert all((len(one) > 0) == (smallest == SMALLEST[0]) for one in expected)
    actual = rotated.find_top_rrpn_proposals(boxes, scores, *arguments)
    for a, e in zip(actual, expected, strict=True):
        assert_same(a, e)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("most", [-1, 10])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("count", [0, 100])
def test_fast_rcnn_inference(
    rotated: Any, count: int, classes: int, most: int, special: bool
) -> None:
    from detectron2.modeling.roi_heads import rotated_fast_rcnn as original

    boxes = boxes_of(count, classes).flatten(1)
    scores = torch.rand(count, 5)
    if special:
        scores[::13], boxes[::7, 2] = torch.nan, torch.inf
    arguments = ((40, 60), 0.5, 0.5, most)
    expected, rows = original.fast_rcnn_inference_single_image_rotated(
        boxes.clone(), scores, *arguments
    )
    assert (len(expected) > 0) == (count > 0)
    actual, indices = rotated.fast_rcnn_inference_single_image_rotated(boxes, scores, *arguments)
    assert_same(actual, expected)
    assert torch.equal(indices, rows)


@pytest.mark.parametrize("count", [0, 20])
def test_kernels_equal_detectron2s(rotated: Any, count: int) -> None:
    from detectron2.layers import ROIAlignRotated, batched_nms_rotated

    boxes, labels = boxes_of(count), torch.arange(count) % 3
    arguments = (boxes, torch.rand(count), labels, 0.3)
    assert torch.equal(rotated.batched_nms_rotated(*arguments), batched_nms_rotated(*arguments))
    torch.library.opcheck(
        rotated.batched_nms_rotated, arguments, test_utils=("test_schema", "test_faketensor")
    )
    images = torch.rand(2, 3, 16, 16)
    rois = torch.cat([labels[:, None] % 2, boxes], 1)
    expected = ROIAlignRotated((4, 5), 0.25, 2)(images, rois)
    assert torch.equal(rotated.roi_align_rotated(images, rois, (4, 5), 0.25, 2), expected)
