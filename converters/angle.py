"""Convert atan2: the arctangent of the slope, moved to the right quadrant."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts
from .unary import is_nan

aten = torch.ops.aten


@converts(aten.atan2.default, constants=("x", "other"))
def atan2(ctx: Context, x: Any, other: Any) -> Any:
    """atan2(Tensor self, Tensor other) -> Tensor: the angle of (other, self), zeros with their
    signs, in float32 even for float16, as torch computes it"""
    rank = ctx.output.dim()
    y, x = ctx.operands(x, other, dtype=torch.float32, rank=rank)
    angle = ctx.unary("ATAN", _slope(ctx, _magnitude(ctx, y), _magnitude(ctx, x)))
    angle = _chosen(ctx, _is_negative(ctx, x), _less(ctx, math.pi, angle), angle)
    angle = _chosen(ctx, _is_negative(ctx, y), ctx.unary("NEG", angle), angle)
    for value in (x, y):
        angle = _chosen(ctx, is_nan(ctx, value), value, angle)
    return ctx.cast(angle, ctx.output.dtype)


def _magnitude(ctx: Context, x: Any) -> Any:
    """Return the absolute value with +0.0 for zeros: ABS of TensorRT 8.6 gives -0.0 for 0.0."""
    zero = ctx.scalar(0.0, torch.float32, len(x.shape))
    magnitude = ctx.unary("ABS", x)
    return _chosen(ctx, ctx.elementwise("GREATER", magnitude, zero), magnitude, zero)


def _slope(ctx: Context, high: Any, wide: Any) -> Any:
    """Divide `high` by `wide`; the slope is 1 for two infinities and 0 for two zeros."""
    quotient = ctx.elementwise("DIV", high, wide)
    zero, one = (ctx.scalar(value, torch.float32, len(wide.shape)) for value in (0.0, 1.0))
    limit = _chosen(ctx, ctx.elementwise("GREATER", wide, zero), one, zero)
    return _chosen(ctx, is_nan(ctx, quotient), limit, quotient)


def _is_negative(ctx: Context, x: Any) -> Any:
    """Return a bool tensor that is true where `x` has a minus sign: 1 / -0.0 is minus infinity."""
    zero = ctx.scalar(0.0, torch.float32, len(x.shape))
    below = ctx.elementwise("LESS", ctx.unary("RECIP", x), zero)
    return ctx.elementwise("OR", below, ctx.elementwise("LESS", x, zero))


def _less(ctx: Context, number: float, x: Any) -> Any:
    return ctx.elementwise("SUB", ctx.scalar(number, torch.float32, len(x.shape)), x)


def _chosen(ctx: Context, condition: Any, x: Any, other: Any) -> Any:
    return ctx.net.add_select(condition, x, other).get_output(0)
