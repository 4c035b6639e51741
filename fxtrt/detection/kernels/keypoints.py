"""Find the peak of each heat map at the size of its box, without storing the enlarged map.

The first kernel interpolates tiles of the enlarged map and keeps the largest value and its
place: a few programs for each map, since a box may have a million pixels. The second one picks
the best of them and computes the position and the score.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["peaks"]

_ROWS, _COLUMNS, _PARTS = 16, 32, 4


@triton.jit
def _box(boxes, index):
    """Read a box; one that is not finite becomes one of a single pixel."""
    x1 = tl.load(boxes + index * 4)
    y1 = tl.load(boxes + index * 4 + 1)
    x2 = tl.load(boxes + index * 4 + 2)
    y2 = tl.load(boxes + index * 4 + 3)
    finite = tl.abs(x1) + tl.abs(y1) + tl.abs(x2) + tl.abs(y2) < float("inf")
    return (
        tl.where(finite, x1, 0.0),
        tl.where(finite, y1, 0.0),
        tl.where(finite, x2, 0.0),
        tl.where(finite, y2, 0.0),
    )


@triton.jit
def _side(low, high):
    """Return the length of a side, and of the side in whole pixels."""
    length = tl.maximum(high - low, 1.0)
    # The bound, far beyond any image, keeps the number of pixels within int32.
    length = tl.where(length < 32768.0, length, 32768.0)
    return length, tl.ceil(length).to(tl.int32)


@triton.jit
def _near(x):
    return (1.25 * x - 2.25) * x * x + 1.0


@triton.jit
def _far(x):
    return ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0


@triton.jit
def _taps(pixel, scale, SIZE: tl.constexpr):
    """Return the four source pixels of a pixel, and their weights, as `F.interpolate` has them."""
    position = scale * (pixel.to(tl.float32) + 0.5) - 0.5
    floor = tl.floor(position)
    t = position - floor
    i = floor.to(tl.int32)
    i0 = tl.minimum(tl.maximum(i - 1, 0), SIZE - 1)
    i1 = tl.minimum(tl.maximum(i, 0), SIZE - 1)
    i2 = tl.minimum(tl.maximum(i + 1, 0), SIZE - 1)
    i3 = tl.minimum(tl.maximum(i + 2, 0), SIZE - 1)
    return i0, i1, i2, i3, _far(t + 1.0), _near(t), _near(1.0 - t), _far(2.0 - t)


@triton.jit
def _row(row, x0, x1, x2, x3, a0, a1, a2, a3):
    """Interpolate along one row of the map."""
    value = tl.load(row[:, None] + x0[None, :]).to(tl.float32) * a0[None, :]
    value += tl.load(row[:, None] + x1[None, :]).to(tl.float32) * a1[None, :]
    value += tl.load(row[:, None] + x2[None, :]).to(tl.float32) * a2[None, :]
    return value + tl.load(row[:, None] + x3[None, :]).to(tl.float32) * a3[None, :]


@triton.jit
def _find_peaks(
    maps, boxes, values, places, keypoints,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0)
    part = tl.program_id(1)
    x1, y1, x2, y2 = _box(boxes, pair // keypoints)
    _, wide = _side(x1, x2)
    _, tall = _side(y1, y2)
    scale_x = tl.div_rn(WIDTH * 1.0, wide.to(tl.float32))
    scale_y = tl.div_rn(HEIGHT * 1.0, tall.to(tl.float32))
    heatmap = maps + pair.to(tl.int64) * (HEIGHT * WIDTH)
    best = tl.full([ROWS, COLUMNS], float("-inf"), tl.float32)
    place = tl.zeros([ROWS, COLUMNS], tl.int32)
    for top in range(part * ROWS, tall, PARTS * ROWS):
        y = top + tl.arange(0, ROWS)
        r0, r1, r2, r3, b0, b1, b2, b3 = _taps(y, scale_y, HEIGHT)
        for left in range(0, wide, COLUMNS):
            x = left + tl.arange(0, COLUMNS)
            c0, c1, c2, c3, a0, a1, a2, a3 = _taps(x, scale_x, WIDTH)
            value = _row(heatmap + r0 * WIDTH, c0, c1, c2, c3, a0, a1, a2, a3) * b0[:, None]
            value += _row(heatmap + r1 * WIDTH, c0, c1, c2, c3, a0, a1, a2, a3) * b1[:, None]
            value += _row(heatmap + r2 * WIDTH, c0, c1, c2, c3, a0, a1, a2, a3) * b2[:, None]
            value += _row(heatmap + r3 * WIDTH, c0, c1, c2, c3, a0, a1, a2, a3) * b3[:, None]
            inside = (y < tall)[:, None] & (x < wide)[None, :]
            # The first one of equal values stays, as in `argmax`.
            better = inside & (value > best)
            best = tl.where(better, value, best)
            place = tl.where(better, y[:, None] * wide + x[None, :], place)
    peak = tl.max(tl.max(best, 1), 0)
    place = tl.where(best == peak, place, 2147483647)
    tl.store(values + pair * PARTS + part, peak)
    tl.store(places + pair * PARTS + part, tl.min(tl.min(place, 1), 0))


@triton.jit
def _describe_peaks(
    maps, boxes, values, places, out, keypoints,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0)
    x1, y1, x2, y2 = _box(boxes, pair // keypoints)
    width, wide = _side(x1, x2)
    height, tall = _side(y1, y2)
    parts = pair * PARTS + tl.arange(0, PARTS)
    value = tl.load(values + parts)
    peak = tl.max(value, 0)
    place = tl.min(tl.where(value == peak, tl.load(places + parts), 2147483647), 0)
    x = ((place % wide).to(tl.float32) + 0.5) * tl.div_rn(width, wide.to(tl.float32)) + x1
    y = ((place // wide).to(tl.float32) + 0.5) * tl.div_rn(height, tall.to(tl.float32)) + y1
    rows = tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, COLUMNS)[None, :]
    source = maps + pair.to(tl.int64) * (HEIGHT * WIDTH) + rows * WIDTH + columns
    inside = (rows < HEIGHT) & (columns < WIDTH)
    logits = tl.load(source, mask=inside, other=float("-inf")).to(tl.float32)
    score = 1.0 / tl.sum(tl.sum(tl.exp(logits - peak), 1), 0)
    tl.store(out + pair * 4, x)
    tl.store(out + pair * 4 + 1, y)
    tl.store(out + pair * 4 + 2, peak)
    tl.store(out + pair * 4 + 3, score)


def peaks(maps: Tensor, boxes: Tensor) -> Tensor:
    """Launch the kernels; the arguments are those of `fxtrt::keypoints_of_heatmaps`."""
    count, keypoints, height, width = maps.shape
    out = maps.new_empty((count, keypoints, 4), dtype=torch.float32)
    if out.numel() == 0:
        return out
    maps, boxes = maps.contiguous(), boxes.float().contiguous()
    values = out.new_empty((count * keypoints, _PARTS))
    places = values.new_empty(values.shape, dtype=torch.int32)
    _find_peaks[(count * keypoints, _PARTS)](
        maps, boxes, values, places, keypoints,
        HEIGHT=height, WIDTH=width, ROWS=_ROWS, COLUMNS=_COLUMNS, PARTS=_PARTS, num_warps=4,
        enable_fp_fusion=True,
    )  # fmt: skip
    _describe_peaks[(count * keypoints,)](
        maps, boxes, values, places, out, keypoints,
        HEIGHT=height, WIDTH=width, PARTS=_PARTS, ROWS=triton.next_power_of_2(height),
        COLUMNS=triton.next_power_of_2(width), num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return out
