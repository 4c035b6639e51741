"""Scale detections to the pictures' own pixels and sum them up, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT, clip

__all__ = ["place"]


@triton.jit
def _place(boxes, counts, overflow, scales, limits, placed, summary, most, SLOTS: tl.constexpr):
    """Take a program for each image; a slot for each of its rows."""
    image = tl.program_id(0)
    slot = tl.arange(0, SLOTS)
    exists = slot < most
    row = (image * most + slot) * 4
    area = exists
    for side in tl.static_range(2):
        low = _side(boxes, scales, limits, image, row + side, side, exists)
        high = _side(boxes, scales, limits, image, row + side + 2, side + 2, exists)
        tl.store(placed + row + side, low, mask=exists)
        tl.store(placed + row + side + 2, high, mask=exists)
        area = area & (high > low)
    sums = summary + image * (most + 2)
    tl.store(sums, tl.load(counts + image))
    tl.store(sums + 1, tl.load(overflow + image).to(tl.int32))
    tl.store(sums + 2 + slot, area.to(tl.int32), mask=exists)


@triton.jit
def _side(boxes, scales, limits, image, place, column, exists):
    """Return one coordinate of each box, scaled and clipped."""
    value = tl.load(boxes + place, mask=exists, other=0.0) * tl.load(scales + image * 4 + column)
    return clip(value, tl.load(limits + image * 4 + column))


def place(
    boxes: Tensor, counts: Tensor, overflow: Tensor, scales: Tensor, limits: Tensor
) -> tuple[Tensor, Tensor]:
    """Launch the kernel; the arguments are those of `fxtrt::place_detections`."""
    images, most = boxes.shape[:2]
    placed = torch.empty_like(boxes, memory_format=torch.contiguous_format)
    summary = counts.new_empty((images, most + 2), dtype=torch.int32)
    given = [one.contiguous() for one in (boxes, counts, overflow, scales, limits)]
    if images:
        slots = triton.next_power_of_2(max(most, 1))
        _place[(images,)](*given, placed, summary, most, SLOTS=slots, **EXACT)
    return placed, summary
