"""Reductions over some or all dimensions: one REDUCE, in a dtype wide enough for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import wide
from ..registry import converts

__all__ = ["accumulated", "axes_mask", "reduce"]

aten = torch.ops.aten


def axes_mask(dim: int | Sequence[int] | None, rank: int) -> int:
    """The bit mask of the dimensions `dim`; of all where there are none."""
    dims = [dim] if isinstance(dim, int) else list(dim or range(rank))
    return sum(1 << (d % rank) for d in dims)


def reduce(
    ctx: Context,
    operation: str,
    x: Any,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Any:
    """REDUCE with `trt.ReduceOperation.<operation>`; a 0-d tensor is its own reduction."""
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
    """`reduce` that accumulates as torch does and gives the dtype of the node's output."""
    if ctx.output.dtype == torch.bool:
        # REDUCE takes no bools: 0 and 1 add up to a count, and multiply to 0 or 1.
        x = ctx.cast(ctx.cast(x, torch.bool), torch.int32)
    else:
        x = ctx.cast(x, wide(ctx.output.dtype))
    return ctx.cast(reduce(ctx, operation, x, dim, keepdim), ctx.output.dtype)


def _dtype(dtype: torch.dtype | None, node: torch.fx.Node) -> str | None:
    """The output's dtype says all that `dtype` does."""
    assert dtype in (None, node.meta["val"].dtype)
    return None


@converts(aten.sum.default, check=_dtype)
def sum_all(ctx: Context, x: Any) -> Any:
    """sum(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return accumulated(ctx, "SUM", x)


@converts(aten.sum.dim_IntList, check=_dtype)
def sum_dims(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
    """sum(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return accumulated(ctx, "SUM", x, dim, keepdim)


@converts(aten.mean.default, check=_dtype)
def mean_all(ctx: Context, x: Any) -> Any:
    """mean(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return accumulated(ctx, "AVG", x)


@converts(aten.mean.dim, check=_dtype)
def mean_dims(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
    """mean(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return accumulated(ctx, "AVG", x, dim, keepdim)


@converts(aten.prod.default, check=_dtype)
def prod_all(ctx: Context, x: Any) -> Any:
    """prod(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return accumulated(ctx, "PROD", x)


@converts(aten.prod.dim_int, check=_dtype)
def prod_dim(ctx: Context, x: Any, dim: int, keepdim: bool) -> Any:
    """prod(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return accumulated(ctx, "PROD", x, dim, keepdim)


@converts(aten.amax.default)
def amax(ctx: Context, x: Any, dim: Sequence[int], keepdim: bool) -> Any:
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _extreme(ctx, "MAX", x, dim, keepdim)


@converts(aten.amin.default)
def amin(ctx: Context, x: Any, dim: Sequence[int], keepdim: bool) -> Any:
    """amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _extreme(ctx, "MIN", x, dim, keepdim)


@converts(aten.max.default)
def max_all(ctx: Context, x: Any) -> Any:
    """max(Tensor self) -> Tensor"""
    return _extreme(ctx, "MAX", x)


@converts(aten.min.default)
def min_all(ctx: Context, x: Any) -> Any:
    """min(Tensor self) -> Tensor"""
    return _extreme(ctx, "MIN", x)


def _some_dims(dim: Any) -> str | None:
    return "dim=[] reduces over no dimension" if isinstance(dim, list) and not dim else None


@converts(aten.any.default)
def any_all(ctx: Context, x: Any) -> Any:
    """any(Tensor self) -> Tensor"""
    return _extreme(ctx, "MAX", ctx.cast(x, torch.bool))


@converts(aten.any.dim, aten.any.dims, check=_some_dims)
def any_dims(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
    """any(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor"""
    return _extreme(ctx, "MAX", ctx.cast(x, torch.bool), dim, keepdim)


@converts(aten.all.default)
def all_all(ctx: Context, x: Any) -> Any:
    """all(Tensor self) -> Tensor"""
    return _extreme(ctx, "MIN", ctx.cast(x, torch.bool))


@converts(aten.all.dim, aten.all.dims, check=_some_dims)
def all_dims(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
    """all(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor"""
    return _extreme(ctx, "MIN", ctx.cast(x, torch.bool), dim, keepdim)


def _extreme(
    ctx: Context,
    operation: str,
    x: Any,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Any:
    """MAX or MIN; REDUCE takes no bools, so they go through int32."""
    dtype = ctx.dtype(x)
    if dtype == torch.bool and len(x.shape) > 0:
        x = ctx.cast(x, torch.int32)
    return ctx.cast(reduce(ctx, operation, x, dim, keepdim), dtype)
