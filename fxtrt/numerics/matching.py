"""Pair the detections of two answers that lie on the same objects."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["assign", "overlaps"]

_SAME_PIXELS = 0.5
"""Boxes whose sides lie this close are the same: an empty box overlaps nothing, not even itself."""


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of each of N boxes with each of M others, as (N, M).

    Args:
        boxes, others: corners x1, y1, x2, y2 in pixels.
    """
    boxes, others = boxes.double(), others.double()
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(side[:, 2:] - side[:, :2]).clamp(min=0).prod(1) for side in (boxes, others)]
    found = (shared / (areas[0][:, None] + areas[1] - shared)).nan_to_num()
    same = (boxes[:, None] - others).abs().amax(2) < _SAME_PIXELS
    return found.masked_fill(same, 1.0)


def assign(closeness: Tensor, fits: Tensor) -> Tensor:
    """Return the column that each row of (N, M) gets, or -1: no column is given twice.

    The first row chooses first; it takes the closest of the columns that fit.
    """
    left = closeness.masked_fill(~fits, -torch.inf).cpu()
    columns = torch.full((len(left),), -1)
    if left.shape[1]:
        for row, choices in enumerate(left):
            best = int(choices.argmax())
            if choices[best] > -torch.inf:
                columns[row] = best
                left[:, best] = -torch.inf
    return columns.to(fits.device)
