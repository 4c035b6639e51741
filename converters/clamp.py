"""Convert clamping to one CLIP between two finite numbers, and to MAX and MIN otherwise."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts
from .elementwise import arithmetic

aten = torch.ops.aten


@converts(
    aten.clamp.default,
    aten.hardtanh.default,
    renamed={"min_val": "min", "max_val": "max"},
)
def clamp(ctx: Context, x: Any, min: Any, max: Any) -> Any:
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    dtype = ctx.output.dtype
    if dtype.is_floating_point and _is_finite(min) and _is_finite(max):
        # Where the bounds cross torch gives `max`, CLIP gives alpha.
        low, high = (min, max) if min < max else (max, max)
        return ctx.activation("CLIP", ctx.cast(x, dtype), alpha=float(low), beta=float(high))
    # An infinity bounds nothing.
    if isinstance(min, float) and min == -math.inf:
        min = None
    if isinstance(max, float) and max == math.inf:
        max = None
    return _between(ctx, ctx.cast(x, dtype), min, max)


@converts(
    aten.clamp.Tensor,
    aten.clamp_min.default,
    aten.clamp_min.Tensor,
    aten.clamp_max.default,
    aten.clamp_max.Tensor,
    constants=("min", "max"),
)
def clamp_between(ctx: Context, x: Any, min: Any = None, max: Any = None) -> Any:
    """clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor

    clamp_min has no `max`, clamp_max no `min`.
    """
    return _between(ctx, x, min, max)


def _between(ctx: Context, x: Any, low: Any, high: Any) -> Any:
    if low is not None:
        x = arithmetic(ctx, "MAX", x, low)
    if high is not None:
        x = arithmetic(ctx, "MIN", x, high)
    return x


def _is_finite(bound: Any) -> bool:
    return isinstance(bound, (int, float)) and math.isfinite(bound)
