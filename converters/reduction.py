"""Convert reductions over some or all dimensions to one REDUCE in a dtype that is wide enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.checks import dtype_of_output
from ..conversion.context import Context
from ..conversion.opmath import wide
from ..registry import converts

__all__ = ["accumulated", "axes_mask", "reduce"]

aten = torch.ops.aten


_SUMS: dict[Any, str] = {
    aten.sum.default: "SUM",
    aten.sum.dim_IntList: "SUM",
    aten.mean.default: "AVG",
    aten.mean.dim: "AVG",
    aten.prod.default: "PROD",
    aten.prod.dim_int: "PROD",
}
_EXTREMES: dict[Any, str] = {
    aten.amax.default: "MAX",
    aten.amin.default: "MIN",
    aten.max.default: "MAX",
    aten.min.default: "MIN",
}
_LOGIC: dict[Any, str] = {
    aten.any.default: "MAX",
    aten.any.dim: "MAX",
    aten.any.dims: "MAX",
    aten.all.default: "MIN",
    aten.all.dim: "MIN",
    aten.all.dims: "MIN",
}


def axes_mask(dim: int | Sequence[int] | None, rank: int) -> int:
    """Return the bit mask of the dimensions `dim`, of all `rank` if there are none."""
    dims = [dim] if isinstance(dim, int) else dim or range(rank)
    mask = 0
    for d in dims:
        mask |= 1 << (d % rank)
    return mask


def reduce(
    ctx: Context,
    operation: str,
    x: Any,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Any:
    """Add a REDUCE with `trt.ReduceOperation.<operation>`; a 0-d tensor is its own reduction."""
    rank = len(x.shape)
    if rank == 0:
        return x
    op = getattr(ctx.trt.ReduceOperation, operation)
    return ctx.net.add_reduce(x, op, axes_mask(dim, rank), keepdim).get_output(0)


def accumulated(
    ctx: Context,
    operation: str,
    x: Any,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Any:
    """Reduce in the dtype that torch accumulates in, and return the node's output dtype."""
    if ctx.output.dtype == torch.bool:
        # REDUCE takes no bools: 0 and 1 add up to a count, and multiply to 0 or 1.
        x = ctx.cast(ctx.cast(x, torch.bool), torch.int32)
    else:
        x = ctx.cast(x, wide(ctx.output.dtype))
    return ctx.cast(reduce(ctx, operation, x, dim, keepdim), ctx.output.dtype)


@converts(*_SUMS, check=dtype_of_output)
def accumulate(ctx: Context, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None)

    sum has neither `dim` nor `keepdim`.
    """
    return accumulated(ctx, _SUMS[ctx.target], x, dim, keepdim)


@converts(*_EXTREMES)
def extreme(ctx: Context, x: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor

    max has neither `dim` nor `keepdim`.
    """
    return _extreme(ctx, _EXTREMES[ctx.target], x, dim, keepdim)


def _some_dims(dim: Any = None) -> str | None:
    return "dim=[] reduces over no dimension" if isinstance(dim, list) and not dim else None


@converts(*_LOGIC, check=_some_dims)
def any_or_all(ctx: Context, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor

    any has neither `dim` nor `keepdim`.
    """
    return _extreme(ctx, _LOGIC[ctx.target], ctx.cast(x, torch.bool), dim, keepdim)


def _extreme(
    ctx: Context,
    operation: str,
    x: Any,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Any:
    """Return the MAX or the MIN. REDUCE takes no bools, so they are cast to int32 and back."""
    dtype = ctx.dtype(x)
    if dtype == torch.bool and len(x.shape) > 0:
        x = ctx.cast(x, torch.int32)
    return ctx.cast(reduce(ctx, operation, x, dim, keepdim), dtype)
