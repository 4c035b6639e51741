"""Execute the SLICE layer, in all its sample modes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    dims,
    layer,
)

_START, _SIZE, _STRIDE, _FILL, _AXES = 1, 2, 3, 4, 5
"""The input slots of the layer."""


@layer("SLICE", "ISliceLayer")
def slice_(layer: Layer) -> Compute:
    raw, rank = layer.raw, layer.rank()
    mode = raw.mode.name
    static: dict[int, Sequence[int] | None] = {
        _START: None if layer.has(_START) else dims(raw.start),
        _SIZE: None if layer.has(_SIZE) else dims(raw.shape),
        _STRIDE: None if layer.has(_STRIDE) else dims(raw.stride),
        _AXES: None if layer.has(_AXES) else dims(getattr(raw, "axes", None)),
    }

    def compute(x: Tensor, *others: Tensor | None) -> Tensor:
        slots = dict(enumerate(others, start=1))

        def numbers(slot: int) -> Sequence[int] | None:
            tensor = slots.get(slot) if slot != _FILL else None
            return static[slot] if tensor is None else tensor.tolist()

        # Some versions return an empty axes attribute if it was never set.
        axes = numbers(_AXES) or range(rank)
        windows = zip(
            axes, numbers(_START) or (), numbers(_SIZE) or (), numbers(_STRIDE) or (), strict=True
        )
        for axis, start, size, stride in windows:
            x = _slice_axis(x, axis % rank, (start, size, stride), mode, slots.get(_FILL))
        return x

    return compute


def _slice_axis(
    x: Tensor, axis: int, window: tuple[int, int, int], mode: str, fill: Tensor | None
) -> Tensor:
    start, size, stride = window
    length = x.shape[axis]
    last = start + (size - 1) * stride
    if size == 0:
        return x.narrow(axis, 0, 0)
    if min(start, last) >= 0 and max(start, last) < length:
        return _inside(x, axis, window)
    index = start + stride * torch.arange(size, device=x.device)
    if mode == "FILL":
        taken = _take_clamped(x, axis, index)
        outside = (index < 0) | (index >= length)
        shape = [-1 if i == axis else 1 for i in range(x.dim())]
        value = x.new_zeros(()) if fill is None else fill.reshape(()).to(x.dtype)
        return torch.where(outside.reshape(shape), value, taken)
    if length == 0:
        raise IndexError(f"axis {axis} is empty, so {mode} finds nothing to sample")
    if mode == "CLAMP":
        return _take_clamped(x, axis, index)
    if mode == "WRAP":
        return x.index_select(axis, index.remainder(length))
    if mode == "REFLECT":
        return x.index_select(axis, _reflect(index, length))
    raise IndexError(f"start {start}, size {size}, stride {stride} leave axis {axis} of {length}")


def _inside(x: Tensor, axis: int, window: tuple[int, int, int]) -> Tensor:
    start, size, stride = window
    if stride == 0:
        return x.narrow(axis, start, 1).expand([size if i == axis else -1 for i in range(x.dim())])
    if stride > 0:
        return x[(slice(None),) * axis + (slice(start, start + (size - 1) * stride + 1, stride),)]
    return x.index_select(axis, start + stride * torch.arange(size, device=x.device))


def _take_clamped(x: Tensor, axis: int, index: Tensor) -> Tensor:
    if x.shape[axis] == 0:
        return x.new_zeros([len(index) if i == axis else n for i, n in enumerate(x.shape)])
    return x.index_select(axis, index.clamp(0, x.shape[axis] - 1))


def _reflect(index: Tensor, length: int) -> Tensor:
    """Mirror indices at the middle of the first and last element, as often as needed."""
    if length == 1:
        return torch.zeros_like(index)
    period = 2 * (length - 1)
    folded = index.remainder(period)
    return torch.where(folded < length, folded, period - folded)
