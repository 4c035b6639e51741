"""Convert choosing between two tensors, element by element, to one SELECT."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts
from .unary import is_infinity, is_nan

__all__ = ["select"]

aten = torch.ops.aten


def select(ctx: Context, condition: Any, x: Any, other: Any) -> Any:
    """Add a SELECT in the dtype and the rank of the node's output."""
    dtype, rank = ctx.output.dtype, ctx.output.dim()
    (condition,) = ctx.operands(condition, dtype=torch.bool, rank=rank)

    def choose(x: Any, other: Any) -> Any:
        x, other = ctx.operands(x, other, dtype=dtype, rank=rank)
        return ctx.net.add_select(condition, x, other).get_output(0)

    large = [_made_finite(ctx, value) for value in (x, other)]
    if not any(large):
        return choose(x, other)
    # Twice the largest number is an infinity.
    limit = torch.finfo(dtype).max
    x, other = (
        math.copysign(limit, value) if is_large else value
        for value, is_large in zip((x, other), large, strict=True)
    )
    factor = choose(*(2.0 if is_large else 1.0 for is_large in large))
    return ctx.elementwise("PROD", choose(x, other), factor)


def _made_finite(ctx: Context, value: Any) -> bool:
    """Return whether `value` is infinite but this TensorRT's constant of it would be finite."""
    if ctx.features.infinite_operands or ctx.output.dtype != torch.float32:
        return False
    return isinstance(value, float) and math.isinf(value)


@converts(
    aten.where.self,
    aten.where.ScalarSelf,
    aten.where.ScalarOther,
    aten.where.Scalar,
    constants=("condition", "x", "other"),
)
def where(ctx: Context, condition: Any, x: Any, other: Any) -> Any:
    """where(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    return select(ctx, condition, x, other)


@converts(aten.masked_fill.Scalar, aten.masked_fill.Tensor, constants=("x", "mask", "value"))
def masked_fill(ctx: Context, x: Any, mask: Any, value: Any) -> Any:
    """masked_fill(Tensor self, Tensor mask, Scalar value) -> Tensor"""
    return select(ctx, mask, value, x)


@converts(aten.nan_to_num.default)
def nan_to_num(
    ctx: Context, x: Any, nan: float | None, posinf: float | None, neginf: float | None
) -> Any:
    """nan_to_num(Tensor self, float? nan, float? posinf, float? neginf) -> Tensor"""
    dtype = ctx.output.dtype
    if not dtype.is_floating_point:
        return x
    limits = torch.finfo(dtype)
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    filled = select(ctx, is_nan(ctx, x), 0.0 if nan is None else nan, x)
    for infinity, value in ((math.inf, high), (-math.inf, low)):
        if value != infinity:
            filled = select(ctx, is_infinity(ctx, x, infinity), value, filled)
    return filled
