"""Paste masks into their boxes as Detectron2 does, with one Triton kernel.

A program writes a strip of one image. Where the strip does not touch the box it writes zeros
without reading the mask. Coordinates are computed without contraction and with correctly rounded
divisions, so that they equal those of the CPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT

__all__ = ["paste"]

_ROWS, _COLUMNS, _TILES = 8, 256, 4
"""A program writes this many tiles of rows and columns, one below the other."""


@triton.jit
def _coordinate(pixel, low, high, SIDE: tl.constexpr):
    """Return the mask's coordinate of a pixel, in the order of operations of `grid_sample`."""
    grid = tl.div_rn(pixel.to(tl.float32) + 0.5 - low, high - low) * 2.0 - 1.0
    return ((grid + 1.0) * SIDE - 1.0) * 0.5


@triton.jit
def _weights(coordinate, touched, SIDE: tl.constexpr):
    """Return the first of two neighbours, both weights, and which neighbours exist."""
    inside = touched & (coordinate > -1.0) & (coordinate < SIDE)
    coordinate = tl.where(inside, coordinate, 0.0)
    floor = tl.floor(coordinate)
    second = coordinate - floor
    low = floor.to(tl.int32)
    return low, 1.0 - second, second, inside & (low >= 0), inside & (low + 1 < SIDE)


@triton.jit
def _read(pointers, exists):
    return tl.load(pointers, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def _sample(mask, x, y, touched_x, touched_y, x1, y1, x2, y2, SIDE: tl.constexpr):
    """Interpolate the mask at each pixel of a tile; outside of the mask it is zero."""
    column, west, east, has_west, has_east = _weights(_coordinate(x, x1, x2, SIDE), touched_x, SIDE)
    row, north, south, has_north, has_south = _weights(
        _coordinate(y, y1, y2, SIDE), touched_y, SIDE
    )
    west, east, has_west, has_east = (
        west[None, :],
        east[None, :],
        has_west[None, :],
        has_east[None, :],
    )
    north, south = north[:, None], south[:, None]
    has_north, has_south = has_north[:, None], has_south[:, None]
    pointers = mask + row[:, None] * SIDE + column[None, :]
    value = _read(pointers, has_north & has_west) * (north * west)
    value += _read(pointers + 1, has_north & has_east) * (north * east)
    value += _read(pointers + SIDE, has_south & has_west) * (south * west)
    value += _read(pointers + SIDE + 1, has_south & has_east) * (south * east)
    return value


@triton.jit(do_not_specialize=["height"])
def _paste(
    masks, boxes, out, height, width, threshold,
    SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64)
    x1 = tl.load(boxes + index * 4)
    y1 = tl.load(boxes + index * 4 + 1)
    x2 = tl.load(boxes + index * 4 + 2)
    y2 = tl.load(boxes + index * 4 + 3)
    finite = tl.abs(x1) + tl.abs(y1) + tl.abs(x2) + tl.abs(y2) < float("inf")
    x = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    # A box without width or height has no coordinates: not even a threshold of 0 is reached.
    right = tl.where(finite & (x1 != x2) & (y1 != y2), tl.ceil(x2) + 1.0, 0.0)
    touched_x = (x >= tl.floor(x1) - 1.0) & (x < right) & (x < width)
    for tile in range(TILES):
        y = (tl.program_id(1) * TILES + tile) * ROWS + tl.arange(0, ROWS)
        touched_y = (y >= tl.floor(y1) - 1.0) & (y < tl.ceil(y2) + 1.0) & (y < height)
        target = out + index * height * width + y[:, None] * width + x[None, :]
        within = (y < height)[:, None] & (x < width)[None, :]
        if (tl.max(touched_x.to(tl.int32), 0) > 0) & (tl.max(touched_y.to(tl.int32), 0) > 0):
            value = _sample(
                masks + index * (SIDE * SIDE), x, y, touched_x, touched_y, x1, y1, x2, y2, SIDE
            )
            pasted = (value >= threshold) & touched_y[:, None] & touched_x[None, :]
            tl.store(target, pasted.to(tl.int8), mask=within)
        else:
            tl.store(target, tl.zeros([ROWS, COLUMNS], tl.int8), mask=within)


def paste(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Launch the kernel; the arguments are those of `fxtrt::paste_masks`."""
    out = masks.new_empty((len(masks), height, width), dtype=torch.bool)
    if out.numel() == 0:
        return out
    grid = (len(masks), triton.cdiv(height, _ROWS * _TILES), triton.cdiv(width, _COLUMNS))
    _paste[grid](
        masks.contiguous(), boxes.float().contiguous(), out.view(torch.int8),
        height, width, float(threshold),
        SIDE=masks.shape[-1], ROWS=_ROWS, COLUMNS=_COLUMNS, TILES=_TILES,
        num_warps=4, **EXACT,
    )  # fmt: skip
    return out
