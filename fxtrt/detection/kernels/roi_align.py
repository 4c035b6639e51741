"""Pool regions from all levels of a feature pyramid with one Triton kernel.

A program computes a block of bins and channels of one region. It picks the level from the
region's area, so that neither the host nor another kernel sorts the regions by level.
The number of samples is computed without contraction and with correctly rounded divisions, in the
order of torchvision's CPU kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..region_levels import level_borders
from .decode import EXACT
from .levels import odd, pick, pick_odd, same_layout

__all__ = ["pool"]

_WARPS = 4


@triton.jit
def _level(x1, y1, x2, y2, borders, LEVELS: tl.constexpr):
    """Return the level of the box, or -1 if it has none because its area is negative."""
    level = tl.full([], 0, tl.int32)
    if LEVELS > 1:
        area = (x2 - x1) * (y2 - y1)
        for i in tl.static_range(len(borders)):
            level += (area >= borders[i]).to(tl.int32)
        level = tl.where(area >= 0, level, -1)
    return level


@triton.jit
def _box(boxes, counts, region, image, rows):
    """Return a region's corners, and whether it is no padding and finite."""
    x1 = tl.load(boxes + region * 4)
    y1 = tl.load(boxes + region * 4 + 1)
    x2 = tl.load(boxes + region * 4 + 2)
    y2 = tl.load(boxes + region * 4 + 3)
    finite = tl.abs(x1) + tl.abs(y1) + tl.abs(x2) + tl.abs(y2) < float("inf")
    return x1, y1, x2, y2, finite & (region - image * rows < tl.load(counts + image))


@triton.jit
def _side(low, high, scale, bins, RATIO: tl.constexpr, ALIGNED: tl.constexpr):
    """Return where a side begins on the level, the extent of a bin, and its number of samples."""
    shift: tl.constexpr = 0.5 if ALIGNED else 0.0
    start = low * scale - shift
    extent = (high * scale - shift) - start
    if not ALIGNED:
        extent = tl.maximum(extent, 1.0)
    bin_extent = tl.div_rn(extent, bins * 1.0)
    if RATIO > 0:
        samples = tl.full([], RATIO, tl.int32)
    else:
        # The bound, which no box within an image reaches, keeps a wild one from hanging the GPU.
        samples = tl.minimum(tl.maximum(tl.ceil(bin_extent), 0.0), 4096.0).to(tl.int32)
    return start, bin_extent, samples


@triton.jit
def _neighbours(start, bin_extent, sample, samples, size):
    """Return the pixels around a sample, the second one's weight, and whether it counts."""
    offset = tl.div_rn((sample + 0.5) * bin_extent, tl.maximum(samples, 1).to(tl.float32))
    position = start + offset
    inside = (position >= -1.0) & (position <= size)
    position = tl.where(inside, tl.maximum(position, 0.0), 0.0)
    low = tl.minimum(position.to(tl.int32), size - 1)
    high = tl.minimum(low + 1, size - 1)
    weight = tl.where(low < size - 1, position - low.to(tl.float32), 0.0)
    return low, high, weight, inside


@triton.jit
def _add_sample(total, upper, lower, left, right, weight_y, weight_x, mask, FUSED: tl.constexpr):
    """Add the values between two rows and two columns: (BINS, BLOCK) pointers and (BINS,) weights.

    A fused product and sum is quicker, and rounds less than float16; in float32 the sums are those
    of torchvision.
    """
    v1 = tl.load(upper + left, mask=mask, other=0.0).to(tl.float32)
    v2 = tl.load(upper + right, mask=mask, other=0.0).to(tl.float32)
    v3 = tl.load(lower + left, mask=mask, other=0.0).to(tl.float32)
    v4 = tl.load(lower + right, mask=mask, other=0.0).to(tl.float32)
    a1 = ((1.0 - weight_y) * (1.0 - weight_x))[:, None]
    a2 = ((1.0 - weight_y) * weight_x)[:, None]
    a3 = (weight_y * (1.0 - weight_x))[:, None]
    a4 = (weight_y * weight_x)[:, None]
    if FUSED:
        total = tl.fma(a1, v1, tl.fma(a2, v2, tl.fma(a3, v3, tl.fma(a4, v4, total))))
    else:
        total += a1 * v1 + a2 * v2 + a3 * v3 + a4 * v4
    return total


@triton.jit
def _mean(
    feature, stored, height, width, top, left, bin_height, bin_width, samples_y, samples_x,
    STEP: tl.constexpr, FUSED: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Average the samples of each bin. `top` and `left` are (BINS,), `feature` (1, BLOCK).

    If FUSED, where results are rounded to 16 bits, the quicker reciprocal replaces the division.
    """
    total = tl.zeros([BINS, BLOCK], tl.float32)
    for sample_y in range(samples_y):
        y1, y2, weight_y, inside_y = _neighbours(top, bin_height, sample_y, samples_y, height)
        upper = feature + (y1 * width * STEP)[:, None]
        lower = feature + (y2 * width * STEP)[:, None]
        for sample_x in range(samples_x):
            x1, x2, weight_x, inside_x = _neighbours(left, bin_width, sample_x, samples_x, width)
            mask = stored & (inside_y & inside_x)[:, None]
            x1 = (x1 * STEP)[:, None]
            x2 = (x2 * STEP)[:, None]
            total = _add_sample(total, upper, lower, x1, x2, weight_y, weight_x, mask, FUSED)
    count = tl.maximum(samples_y * samples_x, 1).to(tl.float32)
    if FUSED:
        total *= tl.div_rn(1.0, count)
    else:
        total = tl.div_rn(total, count)
    return total


@triton.jit
def _pool(
    features, heights, widths, scales, borders, boxes, counts, out, rows,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    RATIO: tl.constexpr, ALIGNED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, FUSED: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    region = tl.program_id(0)
    image = region // rows
    x1, y1, x2, y2, real = _box(boxes, counts, region, image, rows)
    level = _level(x1, y1, x2, y2, borders, len(features))
    real &= (level >= 0) & (level < len(features))
    height = pick_odd(heights, level)
    width = pick_odd(widths, level)
    scale = pick(scales, level)
    left, bin_width, samples_x = _side(x1, x2, scale, WIDTH, RATIO, ALIGNED)
    top, bin_height, samples_y = _side(y1, y2, scale, HEIGHT, RATIO, ALIGNED)
    samples_y = tl.where(real, samples_y, 0)

    bins = tl.program_id(1) * BINS + tl.arange(0, BINS)
    channels = (tl.program_id(2) * BLOCK + tl.arange(0, BLOCK))[None, :]
    stored = (bins < HEIGHT * WIDTH)[:, None] & (channels < CHANNELS)
    tops = top + (bins // WIDTH).to(tl.float32) * bin_height
    lefts = left + (bins % WIDTH).to(tl.float32) * bin_width
    step: tl.constexpr = CHANNELS if CHANNELS_LAST else 1
    plane = 1 if CHANNELS_LAST else height * width
    feature = pick(features, level) + image.to(tl.int64) * CHANNELS * height * width
    mean = _mean(
        feature + channels * plane, stored, height, width, tops, lefts, bin_height, bin_width,
        samples_y, samples_x, step, FUSED, BINS, BLOCK,
    )  # fmt: skip
    target = out + (region.to(tl.int64) * CHANNELS + channels) * (HEIGHT * WIDTH) + bins[:, None]
    tl.store(target, mean.to(out.dtype.element_ty), mask=stored)


def pool(
    features: Sequence[Tensor],
    boxes: Tensor,
    counts: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
    canonical_size: int,
    canonical_level: int,
    library: str,
) -> Tensor:
    """Launch the kernel; the arguments are those of `fxtrt::multilevel_roi_align`."""
    maps, channels_last = same_layout([feature.to(features[0].dtype) for feature in features])
    images, rows, _ = boxes.shape
    channels = features[0].shape[1]
    height, width = output_size
    out = features[0].new_empty((images * rows, channels, height, width))
    if out.numel() == 0:
        return out
    bins, block = _block(height * width, channels, channels_last)
    grid = (images * rows, triton.cdiv(height * width, bins), triton.cdiv(channels, block))
    _pool[grid](
        maps, odd(m.shape[2] for m in maps), odd(m.shape[3] for m in maps),
        tuple(float(scale) for scale in scales),
        level_borders(tuple(scales), canonical_size, canonical_level, library) or (math.inf,),
        boxes.float().contiguous(), counts.contiguous(), out, rows,
        CHANNELS=channels, HEIGHT=height, WIDTH=width,
        RATIO=max(sampling_ratio, 0), ALIGNED=aligned,
        CHANNELS_LAST=channels_last, FUSED=out.dtype != torch.float32, BINS=bins, BLOCK=block,
        num_warps=_WARPS, **EXACT,
    )  # fmt: skip
    return out


def _block(bins: int, channels: int, channels_last: bool) -> tuple[int, int]:
    """Return how many bins and channels a program computes."""
    most = 64 if bins <= 64 else 32
    widest = 64 if channels_last else 32
    return (
        min(most, triton.next_power_of_2(bins)),
        min(widest, triton.next_power_of_2(channels)),
    )
