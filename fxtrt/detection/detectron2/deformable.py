"""Deformable convolution of Detectron2 as torchvision's, which a graph can hold."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import deform_conv2d

__all__ = ["deform_conv", "modulated_deform_conv"]

_Steps = int | Sequence[int]


def deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: _Steps = 1,
    padding: _Steps = 0,
    dilation: _Steps = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> Tensor:
    """`detectron2.layers.deform_conv.deform_conv`: on a CPU torchvision's, else a kernel of `_C`.

    Args:
        input: (N, C, H, W); offset: (N, 2 * deformable_groups * taps, H', W'), pixels;
        weight: (C', C / groups, rows, columns). torchvision reads both counts of groups from them.
    """
    return deform_conv2d(input, offset, weight, None, *map(_pair, (stride, padding, dilation)))  # type: ignore[no-any-return]  # untyped


def modulated_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Steps = 1,
    padding: _Steps = 0,
    dilation: _Steps = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """`detectron2.layers.deform_conv.modulated_deform_conv`: a kernel of `_C`, for GPUs only.

    Args:
        mask: (N, deformable_groups * taps, H', W'), a factor for each sample; the others as above.
    """
    steps = map(_pair, (stride, padding, dilation))
    return deform_conv2d(input, offset, weight, bias, *steps, mask)  # type: ignore[no-any-return]  # untyped


def _pair(value: _Steps) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
