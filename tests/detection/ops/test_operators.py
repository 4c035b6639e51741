"""Each operator gives what torchvision's function gives, and its fake says as much."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection import roi_heads
from torchvision.ops import boxes as box_ops

from fxtrt.detection import ops
from fxtrt.detection.ops.batched_nms import batched_nms
from fxtrt.detection.ops.heatmaps_to_keypoints import heatmaps_to_keypoints
from fxtrt.detection.ops.paste_masks_in_image import paste_masks_in_image

FAKE = ("test_schema", "test_faketensor")


def boxes_of(count: int, special: str = "") -> tuple[Tensor, Tensor, Tensor]:
    """Boxes that overlap a lot, their scores and categories."""
    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + torch.rand(count, 2, generator=generator) * 30], 1)
    scores = torch.rand(count, generator=generator)
    if special == "ties":
        scores = (scores * 4).round() / 4
    if special == "not finite":
        boxes[::7, 2] = torch.inf
        boxes[::11, 0] = torch.nan
    return boxes, scores, torch.randint(0, 4, (count,), generator=generator)


@pytest.mark.parametrize("special", ["", "ties", "not finite"])
@pytest.mark.parametrize("count", [0, 1, 50, 1500])
def test_batched_nms_equals_torchvisions(count: int, special: str) -> None:
    arguments = boxes_of(count, special)
    expected = box_ops.batched_nms(*arguments, 0.5)
    assert torch.equal(batched_nms(*arguments, 0.5), expected)
    torch.library.opcheck(batched_nms, (*arguments, 0.5), test_utils=FAKE)


@pytest.mark.parametrize("count", [0, 1, 6])
@pytest.mark.parametrize("padding", [0, 1])
def test_paste_masks_in_image(count: int, padding: int) -> None:
    torch.manual_seed(count)
    masks, boxes = torch.rand(count, 1, 7, 7), boxes_of(count)[0]
    arguments = (masks, boxes, (50, 70), padding)
    expected = roi_heads.paste_masks_in_image(*arguments)
    assert torch.equal(paste_masks_in_image(*arguments), expected)
    torch.library.opcheck(paste_masks_in_image, arguments, test_utils=FAKE)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_heatmaps_to_keypoints(count: int) -> None:
    torch.manual_seed(count)
    arguments = (torch.rand(count, 3, 8, 8), boxes_of(count)[0])
    expected = roi_heads.heatmaps_to_keypoints(*arguments)
    actual = heatmaps_to_keypoints(*arguments)
    assert all(map(torch.equal, actual, expected))
    torch.library.opcheck(heatmaps_to_keypoints, arguments, test_utils=FAKE)


def test_each_module_defines_the_operator_that_it_is_named_after() -> None:
    defined = {
        path.stem: re.findall(r'custom_op\("fxtrt::(\w+)"', path.read_text())
        for path in Path(*ops.__path__).glob("*.py")
        if path.stem not in ("__init__", "data_dependent_sizes")
    }
    assert len(defined) > 10
    assert defined == {name: [name] for name in defined}
    elsewhere = [
        path.name
        for path in Path(*ops.__path__).parent.rglob("*.py")
        if path.parent.name != "ops" and "custom_op" in path.read_text()
    ]
    assert elsewhere == []
