"""Pool regions from all levels of a feature pyramid with one Triton kernel.

A program computes a block of bins and channels of one region. It picks the level from the
region's area, so that neither the host nor another kernel sorts the regions by level.
Decisions, such as the level and the number of samples, are computed without contraction and
with correctly rounded divisions, in the order of torchvision's CPU kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT
from .levels import odd, pick, pick_odd, same_layout

__all__ = ["pool"]

_WARPS = 4


@triton.jit
def _level(x1, y1, x2, y2, canonical_size, canonical_level, first, last, DETECTRON2: tl.constexpr):
    """Return the level of the box, or -1 if it has none because its area is negative."""
    area = (x2 - x1) * (y2 - y1)
    ratio = tl.div_rn(tl.sqrt_rn(tl.maximum(area, 0.0)), canonical_size)
    if DETECTRON2:
        level = canonical_level + tl.log2((ratio + 1e-8).to(tl.float64)).to(tl.float32)
    else:
        level = canonical_level + tl.log2(ratio.to(tl.float64)).to(tl.float32) + 1e-6
    level = tl.minimum(tl.maximum(tl.floor(level), first), last) - first
    return tl.where(area >= 0, level.to(tl.int32), -1)


@triton.jit
def _neighbours(position, size):
    """Return the pixels around `position`, the second one's weight, and whether to sample."""
    inside = (position >= -1.0) & (position <= size)
    position = tl.where(inside, tl.maximum(position, 0.0), 0.0)
    low = tl.minimum(position.to(tl.int32), size - 1)
    high = tl.minimum(low + 1, size - 1)
    weight = tl.where(low < size - 1, position - low.to(tl.float32), 0.0)
    return low, high, weight, inside


@triton.jit
def _samples(extent, bins, RATIO: tl.constexpr):
    """Return the extent of a bin and the number of samples along it."""
    bin_extent = tl.div_rn(extent, bins * 1.0)
    if RATIO > 0:
        return bin_extent, tl.full([], RATIO, tl.int32)
    else:
        # The bound, which no box within an image reaches, keeps a wild one from hanging the GPU.
        wanted = tl.minimum(tl.maximum(tl.ceil(bin_extent), 0.0), 4096.0)
        return bin_extent, wanted.to(tl.int32)


@triton.jit
def _pool(
    features, heights, widths, scales,
    boxes, counts, out, rows, canonical_size, canonical_level, first, last,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    RATIO: tl.constexpr, ALIGNED: tl.constexpr, DETECTRON2: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, FUSED: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    region = tl.program_id(0)
    image = region // rows
    x1 = tl.load(boxes + region * 4)
    y1 = tl.load(boxes + region * 4 + 1)
    x2 = tl.load(boxes + region * 4 + 2)
    y2 = tl.load(boxes + region * 4 + 3)
    real = region - image * rows < tl.load(counts + image)
    real &= tl.abs(x1) + tl.abs(y1) + tl.abs(x2) + tl.abs(y2) < float("inf")
    if len(features) == 1:
        level = tl.full([], 0, tl.int32)
    else:
        level = _level(x1, y1, x2, y2, canonical_size, canonical_level, first, last, DETECTRON2)
    real &= (level >= 0) & (level < len(features))
    feature = pick(features, level)
    height = pick_odd(heights, level)
    width = pick_odd(widths, level)
    scale = pick(scales, level)
    shift: tl.constexpr = 0.5 if ALIGNED else 0.0
    left = x1 * scale - shift
    top = y1 * scale - shift
    wide = (x2 * scale - shift) - left
    tall = (y2 * scale - shift) - top
    if not ALIGNED:
        wide = tl.maximum(wide, 1.0)
        tall = tl.maximum(tall, 1.0)
    bin_height, samples_y = _samples(tall, HEIGHT, RATIO)
    bin_width, samples_x = _samples(wide, WIDTH, RATIO)
    samples_y = tl.where(real, samples_y, 0)

    bins = tl.program_id(1) * BINS + tl.arange(0, BINS)
    channels = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    bin_y = top + (bins // WIDTH).to(tl.float32) * bin_height
    bin_x = left + (bins % WIDTH).to(tl.float32) * bin_width
    feature += image.to(tl.int64) * CHANNELS * height * width
    if CHANNELS_LAST:
        feature += channels[None, :]
        step = CHANNELS
    else:
        feature += channels[None, :] * (height * width)
        step = 1
    stored = (bins < HEIGHT * WIDTH)[:, None] & (channels < CHANNELS)[None, :]
    total = tl.zeros([BINS, BLOCK], tl.float32)
    count_y = tl.maximum(samples_y, 1).to(tl.float32)
    count_x = tl.maximum(samples_x, 1).to(tl.float32)
    for sample_y in range(samples_y):
        y = bin_y + tl.div_rn((sample_y + 0.5) * bin_height, count_y)
        low_y, high_y, weight_y, inside_y = _neighbours(y, height)
        for sample_x in range(samples_x):
            x = bin_x + tl.div_rn((sample_x + 0.5) * bin_width, count_x)
            low_x, high_x, weight_x, inside_x = _neighbours(x, width)
            mask = stored & (inside_y & inside_x)[:, None]
            upper = feature + (low_y * width * step)[:, None]
            lower = feature + (high_y * width * step)[:, None]
            first_x = (low_x * step)[:, None]
            second_x = (high_x * step)[:, None]
            v1 = tl.load(upper + first_x, mask=mask, other=0.0).to(tl.float32)
            v2 = tl.load(upper + second_x, mask=mask, other=0.0).to(tl.float32)
            v3 = tl.load(lower + first_x, mask=mask, other=0.0).to(tl.float32)
            v4 = tl.load(lower + second_x, mask=mask, other=0.0).to(tl.float32)
            a1 = ((1.0 - weight_y) * (1.0 - weight_x))[:, None]
            a2 = ((1.0 - weight_y) * weight_x)[:, None]
            a3 = (weight_y * (1.0 - weight_x))[:, None]
            a4 = (weight_y * weight_x)[:, None]
            if FUSED:
                total = tl.fma(a1, v1, tl.fma(a2, v2, tl.fma(a3, v3, tl.fma(a4, v4, total))))
            else:
                total += a1 * v1 + a2 * v2 + a3 * v3 + a4 * v4
    total = tl.div_rn(total, count_y * count_x)
    target = out + region.to(tl.int64) * CHANNELS * (HEIGHT * WIDTH)
    target += channels[None, :] * (HEIGHT * WIDTH) + bins[:, None]
    tl.store(target, total.to(out.dtype.element_ty), mask=stored)


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
    maps, channels_last = same_layout(features)
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
        boxes.float().contiguous(), counts.contiguous(), out, rows,
        float(canonical_size), float(canonical_level), *_ends(scales),
        CHANNELS=channels, HEIGHT=height, WIDTH=width,
        RATIO=max(sampling_ratio, 0), ALIGNED=aligned, DETECTRON2=library == "detectron2",
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


def _ends(scales: Sequence[float]) -> tuple[float, float]:
    """Return the first and the last level, counted as the canonical level is."""
    first, last = (float(int(-math.log2(scale))) for scale in (scales[0], scales[-1]))
    return first, last
