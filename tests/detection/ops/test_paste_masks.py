"""`fxtrt::paste_masks` gives what Detectron2's function gives."""

from __future__ import annotations

import pytest
import torch
from detectron2_package import require_detectron2
from hypothesis import given, settings
from hypothesis import strategies as st
from region_boxes import HEIGHT, WIDTH, boxes
from torch import Tensor

from fxtrt.detection.ops.paste_masks import _paste_whole, paste_masks

CLIPPED = boxes(clipped=True)


def masks_of(count: int) -> Tensor:
    """Probabilities of a few distinct values, so that some equal the threshold."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 11, (count, 7, 7), generator=generator) / 10


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn about themselves.
def test_equals_detectron2s_function() -> None:
    require_detectron2()
    from detectron2.layers.mask_ops import paste_masks_in_image

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(CLIPPED, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    def equal(boxes: Tensor, threshold: float) -> None:
        masks = masks_of(len(boxes))
        expected = paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH), threshold)
        actual = paste_masks(masks, boxes, HEIGHT, WIDTH, threshold)
        assert torch.equal(actual, expected.bool())

    equal()


@given(boxes(), st.sampled_from([0.0, 0.3, 0.5]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_sampling_every_pixel_gives_the_same(boxes: Tensor, threshold: float) -> None:
    """Detectron2 does so on a GPU, and this operator where Triton is missing."""
    masks = masks_of(len(boxes)) + 0.01
    actual = paste_masks(masks, boxes, HEIGHT, WIDTH, threshold)
    assert torch.equal(actual, _paste_whole(masks, boxes, HEIGHT, WIDTH, threshold))


def test_the_whole_of_a_box_is_pasted_where_the_mask_is_full() -> None:
    pasted = paste_masks(torch.ones(1, 4, 4), torch.tensor([[3.0, 5, 11, 9]]), 20, 20, 0.5)
    assert pasted.sum() == 8 * 4
    assert pasted[0, 5:9, 3:11].all()


@pytest.mark.parametrize(
    "box",
    [
        [torch.nan, 0, 9, 9],
        [0, 0, torch.inf, 9],
        [-50, 0, -20, 9],
        [70, 5, 90, 9],
        [0, 90, 5, 99],
        [9, 9, 9, 20],
    ],
)
def test_a_box_without_pixels_gives_an_empty_mask(box: list[float]) -> None:
    masks = torch.ones(2, 5, 5)
    pasted = paste_masks(masks, torch.tensor([box, [1.0, 1, 9, 9]]), HEIGHT, WIDTH, 0.5)
    assert not pasted[0].any()
    assert pasted[1].any()


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold of masks is -1"):
        paste_masks(torch.rand(1, 5, 5), torch.zeros(1, 4), 9, 9, -1.0)


@pytest.mark.parametrize(("masks", "boxes"), [((2, 5, 4), (2, 4)), ((2, 5, 5), (1, 4))])
def test_masks_that_are_not_square_or_lack_boxes_are_refused(
    masks: tuple[int, ...], boxes: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="expected square masks"):
        paste_masks(torch.zeros(masks), torch.zeros(boxes), 9, 9, 0.5)


@pytest.mark.parametrize("count", [0, 2])
def test_the_fake_agrees(count: int) -> None:
    arguments = (masks_of(count), torch.tensor([1.0, 2, 30, 40]).expand(count, 4), 40, 50, 0.5)
    torch.library.opcheck(paste_masks, arguments, test_utils=("test_schema", "test_faketensor"))
