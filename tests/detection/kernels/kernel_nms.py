"""The NMS kernels keep what torchvision's `nms` and `batched_nms` keep."""

from __future__ import annotations

import pytest
import torch
from kernel_device import DEVICE
from torch import Tensor
from torchvision.ops import batched_nms, nms

from fxtrt.detection.kernels.nms import MOST_BOXES, nms_sorted

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
"""numpy warns of 0 / 0, the IoU of two boxes without an area."""


def boxes_of(seed: int, problems: int, length: int) -> tuple[Tensor, Tensor]:
    """Boxes that overlap a lot, a few degenerate or equal or not a number; and most are valid."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(problems, length, 2, generator=generator) * 60
    sides = torch.rand(problems, length, 2, generator=generator) * 40
    sides[torch.rand(problems, length, generator=generator) < 0.05] = 0
    boxes = torch.cat([corners, corners + sides], 2)
    boxes[:, length // 2 :: 7] = boxes[:, length // 3 : length // 3 + 1].clone()
    boxes[:, 5::31, 2] = torch.nan
    return boxes, torch.rand(problems, length, generator=generator) < 0.9


def falling(length: int) -> Tensor:
    return torch.arange(length, 0, -1, dtype=torch.float32)


def assert_keeps(
    actual: tuple[Tensor, Tensor], expected: list[Tensor], most: int, problems: int
) -> None:
    kept, counts = (result.cpu() for result in actual)
    assert kept.shape == (problems, most)
    assert counts.tolist() == [min(most, len(one)) for one in expected]
    for row, one in zip(kept, expected, strict=True):
        count = min(most, len(one))
        assert torch.equal(row[:count].long(), one[:count])
        assert (row[count:] == -1).all()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("length", [0, 1, 64, 200])
def test_one_group(length: int, threshold: float) -> None:
    boxes, valid = boxes_of(length, 2, length)
    expected = []
    for its_boxes, its_valid in zip(boxes, valid, strict=True):
        index = its_valid.nonzero()[:, 0]
        expected.append(index[nms(its_boxes[index], falling(len(index)), threshold)])
    for most in (1, 30, 256):
        actual = nms_sorted(boxes.to(DEVICE), valid.to(DEVICE), threshold, most)
        assert_keeps(actual, expected, most, 2)


@pytest.mark.parametrize("shifted", [False, True])
def test_groups_and_counts(shifted: bool) -> None:
    """Boxes are few enough for torchvision to shift them. Halves of integers do not round then."""
    boxes, valid = boxes_of(3, 2, 150)
    boxes = (boxes * 2).round().nan_to_num() / 2
    groups = torch.randint(0, 4, (2, 150), generator=torch.Generator().manual_seed(1))
    counts = [150, 70]
    expected, largest = [], []
    for i, count in enumerate(counts):
        index = valid[i, :count].nonzero()[:, 0]
        largest.append(boxes[i, index].max())
        arguments = (boxes[i, index], falling(len(index)), groups[i, index], 0.4)
        expected.append(index[batched_nms(*arguments)])
    actual = nms_sorted(
        boxes.to(DEVICE), valid.to(DEVICE), 0.4, 100, groups=groups.int().to(DEVICE),
        counts=torch.tensor(counts, dtype=torch.int32, device=DEVICE),
        largest=torch.stack(largest).to(DEVICE) if shifted else None,
    )  # fmt: skip
    assert_keeps(actual, expected, 100, 2)


def test_shifts_round_as_torchvisions() -> None:
    """The IoU of these boxes is above the threshold by less than the rounding of the shift."""
    boxes = torch.tensor([[0.1, 0.1, 4000.1, 10.1], [0.1, 0.1, 4000.1, 5.1001]])
    groups = torch.tensor([7, 7])
    iou = 5.0001 / 10
    counts = set()
    for threshold in (iou - 1e-6, iou, iou + 1e-6, iou + 1e-5, iou + 5e-5, iou - 5e-5):
        expected = batched_nms(boxes, falling(2), groups, threshold)
        actual = nms_sorted(
            boxes[None].to(DEVICE), torch.ones(1, 2, dtype=torch.bool, device=DEVICE), threshold, 2,
            groups=groups[None].int().to(DEVICE), largest=boxes.max()[None].to(DEVICE),
        )  # fmt: skip
        assert_keeps(actual, [expected], 2, 1)
        counts.add(len(expected))
    assert counts == {1, 2}


def test_levels_are_shifted_by_their_number() -> None:
    boxes, valid = boxes_of(8, 6, 90)
    boxes, valid = boxes.nan_to_num(), torch.ones_like(valid)
    largest = torch.stack([boxes[:3].max(), boxes[3:].max()])
    expected = []
    for image in (boxes[:3], boxes[3:]):
        levels = torch.arange(3).repeat_interleave(90)
        scores = falling(90).repeat(3)
        kept = batched_nms(image.flatten(0, 1), scores, levels, 0.5).sort().values
        expected += [kept[kept // 90 == level] % 90 for level in range(3)]
    actual = nms_sorted(
        boxes.to(DEVICE), valid.to(DEVICE), 0.5, 90, largest=largest.to(DEVICE), levels=3
    )
    assert_keeps(actual, expected, 90, 6)


def test_a_chain_in_which_each_box_suppresses_the_next() -> None:
    """Every other box is kept, which takes as many rounds as there are boxes in a block."""
    left = torch.arange(130, dtype=torch.float32) * 3
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], 1)[None]
    valid = torch.ones(1, 130, dtype=torch.int8)
    actual = nms_sorted(boxes.to(DEVICE), valid.to(DEVICE), 0.5, 130)
    assert_keeps(actual, [torch.arange(0, 130, 2)], 130, 1)


def test_too_many_boxes_are_refused() -> None:
    length = MOST_BOXES + 1
    boxes = torch.zeros(1, length, 4, device=DEVICE)
    with pytest.raises(ValueError, match=f"{length} boxes"):
        nms_sorted(boxes, torch.ones(1, length, dtype=torch.int8, device=DEVICE), 0.5, 10)
