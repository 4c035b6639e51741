"""Execute layers that reduce or accumulate along axes: REDUCE, SOFTMAX and CUMULATIVE."""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    layer,
)


def axes_of(mask: int, rank: int) -> list[int]:
    """Return the axes whose bits are set in `mask`."""
    return [axis for axis in range(rank) if mask >> axis & 1]


@layer("REDUCE", "IReduceLayer")
def reduce(layer: Layer) -> Compute:
    raw = layer.raw
    operation, keep = raw.op.name, raw.keep_dims
    axes = axes_of(raw.axes, layer.rank())
    return lambda x: _reduce(x, operation, axes, keep)


def _reduce(x: Tensor, operation: str, axes: list[int], keep: bool) -> Tensor:
    if operation == "NONE" or not axes:
        return x
    if operation == "MAX":
        return x.amax(axes, keep)
    if operation == "MIN":
        return x.amin(axes, keep)
    if operation == "SUM":
        return x.sum(axes, keep, dtype=x.dtype)
    if operation == "PROD":
        for axis in reversed(axes):
            x = x.prod(axis, keep, dtype=x.dtype)
        return x
    if x.is_floating_point():
        return x.mean(axes, keep)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(x.sum(axes, keep, dtype=x.dtype), count, rounding_mode="trunc")


@layer("SOFTMAX", "ISoftMaxLayer")
def softmax(layer: Layer) -> Compute:
    (axis,) = axes_of(layer.raw.axes, layer.rank())
    return lambda x: torch.softmax(x, axis)


@layer("CUMULATIVE", "ICumulativeLayer")
def cumulative(layer: Layer) -> Compute:
    exclusive, backward = layer.raw.exclusive, layer.raw.reverse

    def compute(x: Tensor, axis: Tensor) -> Tensor:
        dim = int(axis)
        ordered = x.flip(dim) if backward else x
        total = ordered.cumsum(dim, dtype=x.dtype)
        if exclusive:
            total = torch.cat(
                [torch.zeros_like(total.narrow(dim, 0, 1)), total.narrow(dim, 0, x.shape[dim] - 1)],
                dim,
            )
        return total.flip(dim) if backward else total

    return compute
