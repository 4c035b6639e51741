"""Clamping: one CLIP between two numbers, MAX and MIN otherwise."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts
from .elementwise import arithmetic

aten = torch.ops.aten


@converts(aten.clamp.default)
def clamp(ctx: Context, x: Any, min: Any, max: Any) -> Any:
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    dtype = ctx.output.dtype
    if dtype.is_floating_point and _is_finite(min) and _is_finite(max):
        # Where the bounds cross torch gives `max`, CLIP gives alpha.
        low = float(min if min < max else max)
        return ctx.activation("CLIP", ctx.cast(x, dtype), alpha=low, beta=float(max))
    x = ctx.cast(x, dtype)
    return _between(ctx, x, _unless(-math.inf, min), _unless(math.inf, max))


@converts(aten.hardtanh.default)
def hardtanh(ctx: Context, x: Any, min_val: Any, max_val: Any) -> Any:
    """hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor"""
    return clamp(ctx, x, min_val, max_val)


@converts(aten.clamp.Tensor, constants=("min", "max"))
def clamp_tensor(ctx: Context, x: Any, min: Any, max: Any) -> Any:
    """clamp(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor"""
    return _between(ctx, x, min, max)


@converts(aten.clamp_min.default, aten.clamp_min.Tensor, constants=("min",))
def clamp_min(ctx: Context, x: Any, min: Any) -> Any:
    """clamp_min(Tensor self, Scalar min) -> Tensor"""
    return _between(ctx, x, min, None)


@converts(aten.clamp_max.default, aten.clamp_max.Tensor, constants=("max",))
def clamp_max(ctx: Context, x: Any, max: Any) -> Any:
    """clamp_max(Tensor self, Scalar max) -> Tensor"""
    return _between(ctx, x, None, max)


def _between(ctx: Context, x: Any, low: Any, high: Any) -> Any:
    if low is not None:
        x = _bounded(ctx, "MAX", x, low)
    if high is not None:
        x = _bounded(ctx, "MIN", x, high)
    return x


def _bounded(ctx: Context, operation: str, x: Any, bound: Any) -> Any:
    return arithmetic(ctx, operation, x, bound)


def _unless(nothing: float, bound: Any) -> Any:
    """`bound`, or None where it is the infinity that bounds nothing."""
    return None if isinstance(bound, float) and bound == nothing else bound


def _is_finite(bound: Any) -> bool:
    return isinstance(bound, (int, float)) and math.isfinite(bound)
