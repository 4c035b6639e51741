"""Softmax, one SOFTMAX layer, and its logarithm, written out so that nothing underflows.

Both compute in float32: TensorRT does not say what a SOFTMAX of halves adds up in.
"""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import wide
from ..registry import converts
from .reduction import reduce

__all__ = ["softmax_layer"]

aten = torch.ops.aten


def _has_dims(x: torch.Tensor) -> str | None:
    return "the tensor is 0-d" if x.dim() == 0 else None


def _dtype(dtype: torch.dtype | None, node: torch.fx.Node) -> str | None:
    """The output's dtype says all that `dtype` does."""
    assert dtype in (None, node.meta["val"].dtype)
    return None


def _half_to_float(half_to_float: bool, node: torch.fx.Node) -> str | None:
    """The output's dtype says all that `half_to_float` does."""
    assert not half_to_float or node.meta["val"].dtype == torch.float32
    return None


def softmax_layer(ctx: Context, x: Any, dim: int) -> Any:
    """SOFTMAX over `dim`; the layer wants two dimensions."""
    if len(x.shape) == 1:
        row = softmax_layer(ctx, ctx.reshape(x, (1, *x.shape)), 1)
        return ctx.reshape(row, tuple(x.shape))
    layer = ctx.net.add_softmax(x)
    layer.axes = 1 << dim % len(x.shape)
    return layer.get_output(0)


@converts(aten.softmax.int, check=(_has_dims, _dtype))
def softmax(ctx: Context, x: Any, dim: int) -> Any:
    """softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    dtype = ctx.output.dtype
    return ctx.cast(softmax_layer(ctx, ctx.cast(x, wide(dtype)), dim), dtype)


@converts(aten._softmax.default, check=(_has_dims, _half_to_float))
def _softmax(ctx: Context, x: Any, dim: int) -> Any:
    """_softmax(Tensor self, int dim, bool half_to_float) -> Tensor"""
    return softmax(ctx, x, dim)


@converts(aten.log_softmax.int, check=(_has_dims, _dtype))
def log_softmax(ctx: Context, x: Any, dim: int) -> Any:
    """log_softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    x = ctx.cast(x, wide(ctx.output.dtype))
    shifted = ctx.elementwise("SUB", x, reduce(ctx, "MAX", x, dim, True))
    total = reduce(ctx, "SUM", ctx.unary("EXP", shifted), dim, True)
    result = ctx.elementwise("SUB", shifted, ctx.unary("LOG", total))
    return ctx.cast(result, ctx.output.dtype)


@converts(aten._log_softmax.default, check=(_has_dims, _half_to_float))
def _log_softmax(ctx: Context, x: Any, dim: int) -> Any:
    """_log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor"""
    return log_softmax(ctx, x, dim)
