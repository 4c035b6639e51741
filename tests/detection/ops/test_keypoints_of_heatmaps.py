"""`fxtrt::keypoints_of_heatmaps` gives what both libraries' functions give."""

from __future__ import annotations

import pytest
import torch
from detectron2_package import require_detectron2
from hypothesis import given, settings
from hypothesis import strategies as st
from region_boxes import boxes
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection import roi_heads

from fxtrt.detection.ops.keypoints_of_heatmaps import keypoints_of_heatmaps

KINDS = st.sampled_from(["random", "ties", "flat"])


def maps_of(count: int, kind: str = "random") -> Tensor:
    maps = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    if kind == "ties":
        return (maps * 2).round()
    return torch.zeros_like(maps) if kind == "flat" else maps


@given(boxes(), KINDS)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_equals_torchvisions_function(boxes: Tensor, kind: str) -> None:
    maps = maps_of(len(boxes), kind)
    places, logits = roi_heads.heatmaps_to_keypoints(maps, boxes)
    actual = keypoints_of_heatmaps(maps, boxes)
    assert torch.equal(actual[..., :2], places[..., :2])
    assert torch.equal(actual[..., 2], logits)


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn about themselves.
def test_equals_detectron2s_function() -> None:
    require_detectron2()
    from detectron2.structures.keypoints import heatmaps_to_keypoints

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(boxes(), KINDS)
    def equal(boxes: Tensor, kind: str) -> None:
        maps = maps_of(len(boxes), kind)
        expected = heatmaps_to_keypoints(maps, boxes)
        assert torch.equal(keypoints_of_heatmaps(maps, boxes), expected)

    equal()


def test_a_peak_is_found_in_the_middle_of_its_pixel() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 2] = 9
    (x, y, logit, score) = keypoints_of_heatmaps(maps, torch.tensor([[10.0, 20, 14, 24]]))[0, 0]
    assert (x, y, logit) == (12.5, 21.5, 9)
    assert score == 1 / (maps - 9).exp().sum()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_box_that_is_not_finite_has_one_pixel(value: float) -> None:
    maps = maps_of(1)
    actual = keypoints_of_heatmaps(maps, torch.tensor([[0.0, value, 9, 9]]))
    assert torch.equal(actual, keypoints_of_heatmaps(maps, torch.zeros(1, 4)))
    assert actual.isfinite().all()


def test_float16_maps_are_enlarged_in_float32() -> None:
    maps, boxes = maps_of(2).half(), torch.tensor([[0.0, 0, 33, 20], [3, 3, 9, 50]])
    actual = keypoints_of_heatmaps(maps, boxes)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, keypoints_of_heatmaps(maps.float(), boxes))


def test_maps_without_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"boxes of the shape \(1, 4\)"):
        keypoints_of_heatmaps(maps_of(2), torch.zeros(1, 4))


@pytest.mark.parametrize("count", [0, 2])
def test_the_fake_agrees(count: int) -> None:
    arguments = (maps_of(count), torch.tensor([1.0, 2, 30, 40]).expand(count, 4))
    torch.library.opcheck(
        keypoints_of_heatmaps, arguments, test_utils=("test_schema", "test_faketensor")
    )
