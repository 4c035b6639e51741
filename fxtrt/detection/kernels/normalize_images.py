"""Normalise an image into its place in the batch, with one Triton kernel for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT

__all__ = ["normalize"]

_ROWS, _COLUMNS = 4, 256


@triton.jit(do_not_specialize=["image_height", "image_width", "channel_stride", "row_stride"])
def _normalize(
    image, mean, std, out, image_height, image_width, height, width,
    channel_stride, row_stride, column_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (y < image_height) & (x < image_width)
    source = image + channel * channel_stride + y * row_stride + x * column_stride
    value = tl.load(source, mask=inside, other=0).to(tl.float32)
    value = tl.div_rn(value - tl.load(mean + channel), tl.load(std + channel))
    target = out + (channel * height + y) * width + x
    tl.store(target, tl.where(inside, value, 0.0), mask=(y < height) & (x < width))


def normalize(
    images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int
) -> Tensor:
    """Launch the kernel for each image; the arguments are those of `fxtrt::normalize_images`."""
    channels = len(mean)
    batch = mean.new_empty((len(images), channels, height, width), dtype=torch.float32)
    grid = (channels, triton.cdiv(height, _ROWS), triton.cdiv(width, _COLUMNS))
    mean, std = mean.contiguous(), std.contiguous()
    for image, out in zip(images, batch, strict=True):
        _normalize[grid](
            image, mean, std, out, image.shape[1], image.shape[2], height, width,
            *image.stride(), ROWS=_ROWS, COLUMNS=_COLUMNS, num_warps=4, **EXACT,
        )  # fmt: skip
    return batch
