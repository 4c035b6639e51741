"""Convert cummax and cummin of length N to about log2(N) rounds of shift, compare and SELECT."""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.checks import reads_output
from ..conversion.context import Context
from ..graph.sizes import Size, is_static
from ..registry import converts
from .unary import is_nan

aten = torch.ops.aten

_LATER_WINS: dict[Any, str] = {aten.cummax.default: "GREATER", aten.cummin.default: "LESS"}


def _static_length(x: torch.Tensor, dim: int) -> str | None:
    size: Size = x.shape[dim] if x.dim() else 1
    return None if is_static(size) else f"the dimension has the dynamic size {size}"


@converts(*_LATER_WINS, check=_static_length)
def running_extremum(ctx: Context, x: Any, dim: int) -> tuple[Any, Any]:
    """cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)

    The index is that of the last of equal elements. NaN counts as the extremum, and the index is
    that of the last NaN.
    """
    # After k rounds each element holds the extremum of the 2**k elements that end with it. Where
    # fewer come before it, the shift repeats the first element, which changes no extremum.
    dtype, sizes = ctx.output[0].dtype, ctx.output[0].shape
    values = ctx.cast(x, torch.int32) if dtype == torch.bool else x
    if not len(sizes):
        return x, ctx.scalar(0, torch.int64)
    dim %= len(sizes)
    places = _places(ctx, dim) if reads_output(ctx.node, 1) else None
    length, step = int(sizes[dim]), 1
    while step < length:
        earlier = _shifted(ctx, values, dim, step)
        keeps = _keeps(ctx, earlier, values)
        if places is not None:
            before = _shifted(ctx, places, dim, step)
            places = ctx.net.add_select(keeps, places, before).get_output(0)
        values = ctx.net.add_select(keeps, values, earlier).get_output(0)
        step *= 2
    return ctx.cast(values, dtype), places


def _places(ctx: Context, dim: int) -> Any:
    """Return the index of each element along `dim`, in the shape of the result."""
    sizes = ctx.output[1].shape
    row = torch.arange(int(sizes[dim])).reshape([-1 if d == dim else 1 for d in range(len(sizes))])
    stride = [1 if d == dim else 0 for d in range(len(sizes))]
    return ctx.slice(ctx.tensor(row), [0] * len(sizes), sizes, stride)


def _shifted(ctx: Context, x: Any, dim: int, step: int) -> Any:
    """Shift `x` by `step` elements along `dim`, and repeat the first element in the gap."""
    sizes = ctx.output[0].shape
    start = [-step if d == dim else 0 for d in range(len(sizes))]
    return ctx.slice(x, start, sizes, mode="CLAMP")


def _keeps(ctx: Context, earlier: Any, later: Any) -> Any:
    """Return a bool tensor that is true where `later` is the extremum of the two."""
    comparison = _LATER_WINS[ctx.target]
    wins = ctx.elementwise(comparison, later, earlier)
    wins = ctx.elementwise("OR", wins, ctx.elementwise("EQUAL", later, earlier))
    if not ctx.dtype(later).is_floating_point:
        return wins
    return ctx.elementwise("OR", wins, is_nan(ctx, later))
