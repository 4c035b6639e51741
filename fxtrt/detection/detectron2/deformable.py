"""Replace Detectron2's deformable convolutions by torchvision's operator, which can be traced."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import deform_conv2d

__all__ = ["deform_conv", "modulated_deform_conv"]

_Pair = int | Sequence[int]


def deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> Tensor:
    """Replace `detectron2.layers.deform_conv.deform_conv`, a kernel of Detectron2's `_C` on GPUs.

    On a CPU Detectron2 itself calls torchvision, which reads both numbers of groups off the shapes.

    Args:
        input: (N, C, H, W).
        offset: (N, 2 * deformable_groups * taps, H', W'), pixels.
        weight: (C', C / groups, rows, columns).
    """
    return deform_conv2d(input, offset, weight, None, *map(_as_pair, (stride, padding, dilation)))  # type: ignore[no-any-return]  # untyped


def modulated_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """Replace `detectron2.layers.deform_conv.modulated_deform_conv`, a kernel for GPUs only.

    Args:
        mask: (N, deformable_groups * taps, H', W'), a factor for each sample.
        input, offset, weight: as in `deform_conv`.
    """
    steps = map(_as_pair, (stride, padding, dilation))
    return deform_conv2d(input, offset, weight, bias, *steps, mask)  # type: ignore[no-any-return]  # untyped


def _as_pair(value: _Pair) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
