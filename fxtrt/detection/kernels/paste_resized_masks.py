"""Resize masks to their boxes and paste them as torchvision does, with one Triton kernel.

A program writes a strip of one image. Where the strip does not touch the box it writes zeros
without reading the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT

__all__ = ["paste_resized"]

_ROWS, _COLUMNS, _TILES = 8, 128, 4
"""A program writes this many tiles of rows and columns, one below the other."""


@triton.jit
def _enlarged(low, high, factor):
    """Return the first and the last pixel of a side of the enlarged box."""
    half = (high - low) * 0.5 * factor
    centre = (high + low) * 0.5
    # The bound, a thousand times the largest image, keeps wild boxes within int32.
    first = tl.minimum(tl.maximum(centre - half, -1.0e8), 1.0e8)
    last = tl.minimum(tl.maximum(centre + half, -1.0e8), 1.0e8)
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit
def _neighbours(pixel, first, last, PADDED: tl.constexpr):
    """Return both neighbours of a pixel in the padded mask, and the second one's weight."""
    extent = tl.maximum(last - first + 1, 1).to(tl.float32)
    position = tl.div_rn(PADDED * 1.0, extent) * ((pixel - first).to(tl.float32) + 0.5) - 0.5
    position = tl.minimum(tl.maximum(position, 0.0), PADDED - 1.0)
    low = position.to(tl.int32)
    return low, tl.minimum(low + 1, PADDED - 1), position - low.to(tl.float32)


@triton.jit
def _read(mask, row, column, touched, SIDE: tl.constexpr, PADDING: tl.constexpr):
    """Read the mask, which a border of zeros surrounds."""
    row = row[:, None] - PADDING
    column = column[None, :] - PADDING
    exists = touched & (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
    return tl.load(mask + row * SIDE + column, mask=exists, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["height"])
def _paste(
    masks, boxes, out, height, width, factor,
    SIDE: tl.constexpr, PADDING: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64)
    x1 = tl.load(boxes + index * 4)
    y1 = tl.load(boxes + index * 4 + 1)
    x2 = tl.load(boxes + index * 4 + 2)
    y2 = tl.load(boxes + index * 4 + 3)
    finite = tl.abs(x1) + tl.abs(y1) + tl.abs(x2) + tl.abs(y2) < float("inf")
    left, right = _enlarged(x1, x2, factor)
    right = tl.where(finite, right, -1)
    top, bottom = _enlarged(y1, y2, factor)
    mask = masks + index * (SIDE * SIDE)
    x = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    touched_x = (x >= left) & (x <= right) & (x < width)
    for tile in range(TILES):
        y = (tl.program_id(1) * TILES + tile) * ROWS + tl.arange(0, ROWS)
        touched_y = (y >= top) & (y <= bottom) & (y < height)
        target = out + index * height * width + y[:, None] * width + x[None, :]
        within = (y < height)[:, None] & (x < width)[None, :]
        value = tl.zeros([ROWS, COLUMNS], tl.float32)
        if (tl.max(touched_x.to(tl.int32), 0) > 0) & (tl.max(touched_y.to(tl.int32), 0) > 0):
            touched = touched_y[:, None] & touched_x[None, :]
            west, east, weight_x = _neighbours(x, left, right, SIDE + 2 * PADDING)
            north, south, weight_y = _neighbours(y, top, bottom, SIDE + 2 * PADDING)
            weight_x, weight_y = weight_x[None, :], weight_y[:, None]
            upper = _read(mask, north, west, touched, SIDE, PADDING) * (1.0 - weight_x)
            upper += _read(mask, north, east, touched, SIDE, PADDING) * weight_x
            lower = _read(mask, south, west, touched, SIDE, PADDING) * (1.0 - weight_x)
            lower += _read(mask, south, east, touched, SIDE, PADDING) * weight_x
            value = upper * (1.0 - weight_y) + lower * weight_y
        tl.store(target, value.to(out.dtype.element_ty), mask=within)


def paste_resized(
    masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1
) -> Tensor:
    """Launch the kernel; the arguments are those of `fxtrt::paste_masks_in_image`."""
    height, width = img_shape
    side = masks.shape[-1]
    out = masks.new_empty((len(masks), 1, height, width))
    if out.numel() == 0:
        return out
    grid = (len(masks), triton.cdiv(height, _ROWS * _TILES), triton.cdiv(width, _COLUMNS))
    _paste[grid](
        masks.contiguous(), boxes.float().contiguous(), out, height, width,
        (side + 2 * padding) / side, SIDE=side, PADDING=padding,
        ROWS=_ROWS, COLUMNS=_COLUMNS, TILES=_TILES, num_warps=4, **EXACT,
    )  # fmt: skip
    return out
