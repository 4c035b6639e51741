"""The kernel that places detections gives what the operator gives on the CPU."""

from __future__ import annotations

import torch
from kernel_device import DEVICE

from fxtrt.detection.kernels.placing import place
from fxtrt.detection.ops.place_detections import place_detections


def test_boxes_inside_outside_and_empty() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(3, 5, 4, generator=generator) * 90 - 20
    boxes[0, 1] = torch.tensor([500.0, 500.0, 600.0, 600.0])
    boxes[1, 2:] = 0
    given = (
        boxes,
        torch.tensor([5, 2, 0], dtype=torch.int32),
        torch.tensor([False, True, False]),
        torch.tensor([[2.0, 0.5, 2.0, 0.5], [1.0, 1.0, 1.0, 1.0], [0.1, 3.0, 0.1, 3.0]]),
        torch.tensor([[100.0, 40.0, 100.0, 40.0]] * 3),
    )
    expected = place_detections(*given)
    actual = place(*(tensor.to(DEVICE) for tensor in given))
    assert all(map(torch.equal, (tensor.cpu() for tensor in actual), expected))
    assert expected[1][:, :2].tolist() == [[5, 0], [2, 1], [0, 0]]


def test_a_coordinate_that_is_nan_stays_so() -> None:
    boxes = torch.tensor([[[torch.nan, 0.0, 4.0, 4.0], [1.0, 1.0, torch.nan, 4.0]]])
    given = (
        boxes,
        torch.tensor([2], dtype=torch.int32),
        torch.tensor([False]),
        torch.ones(1, 4),
        torch.full((1, 4), 9.0),
    )
    placed, summary = place(*(tensor.to(DEVICE) for tensor in given))
    assert torch.equal(placed.isnan().cpu(), boxes.isnan())
    assert summary.tolist() == [[2, 0, 0, 0]]
