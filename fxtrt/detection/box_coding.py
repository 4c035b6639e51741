"""Decode boxes from a head's deltas in float32, operation by operation as both libraries do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SCALE_CLAMP", "apply_deltas", "apply_linear_deltas", "clip"]

SCALE_CLAMP = math.log(1000.0 / 16)
"""Both libraries limit dw and dh to this before the exponential."""


def apply_deltas(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Move and scale boxes, as `Box2BoxTransform.apply_deltas` and `BoxCoder.decode_single` do.

    Args:
        deltas: (N, K * 4), K sets of dx, dy, dw and dh for each box.
        boxes: (N, 4).
        weights: what dx, dy, dw and dh are divided by.

    Returns:
        (N, K, 4), float32.
    """
    deltas, boxes = deltas.float(), boxes.float()
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sides
    dx, dy, dw, dh = (deltas[:, i::4] / weights[i] for i in range(4))
    x = dx * sides[:, :1] + centres[:, :1]
    y = dy * sides[:, 1:] + centres[:, 1:]
    width = torch.exp(torch.clamp(dw, max=SCALE_CLAMP)) * sides[:, :1]
    height = torch.exp(torch.clamp(dh, max=SCALE_CLAMP)) * sides[:, 1:]
    corners = (x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height)
    return torch.stack(corners, dim=-1)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Limit x to [0, width] and y to [0, height]; NaN stays NaN.

    Args:
        boxes: (..., 4).
        sizes: (..., 2), height and width; it broadcasts against `boxes`.
    """
    width_height = sizes.flip(-1).to(boxes)
    return torch.minimum(boxes.clamp(min=0), torch.cat([width_height, width_height], -1))


def apply_linear_deltas(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Measure boxes from the centres of others, as FCOS's coders do in both libraries.

    Args:
        deltas: (N, 4), the distances to the left, top, right and bottom side, in units of the
            width or height of the box.
        boxes: (N, 4).

    Returns:
        (N, 4), float32.
    """
    deltas, boxes = deltas.float(), boxes.float()
    centres = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    sides = boxes[:, 2:] - boxes[:, :2]
    distances = deltas * torch.cat([sides, sides], 1)
    return torch.cat([centres - distances[:, :2], centres + distances[:, 2:]], 1)
