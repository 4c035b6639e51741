"""Convert arithmetic of two or three operands, in the dtype that torch promotes them to.

Numbers enter as float32. An operator of two steps rounds its result to the output's dtype
once.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import in_float32, wide
from ..registry import converts

__all__ = ["arithmetic", "scaled"]

aten = torch.ops.aten

_OPERATIONS: dict[Any, str] = {
    aten.mul.Tensor: "PROD",
    aten.mul.Scalar: "PROD",
    aten.maximum.default: "MAX",
    aten.minimum.default: "MIN",
}
_SCALED_TERMS: dict[Any, str] = {aten.addcmul.default: "PROD", aten.addcdiv.default: "DIV"}
_ON_BOOLS = {"SUM": "OR", "PROD": "AND", "MAX": "OR", "MIN": "AND"}
_ROUNDED_LAST = ("MAX", "MIN")
"""Rounding the operands of these gives the same result as rounding the result."""


def arithmetic(ctx: Context, operation: str, a: Any, b: Any) -> Any:
    """Combine tensors and numbers in the dtype and the rank of the node's output."""
    dtype = ctx.output.dtype
    if operation not in _ROUNDED_LAST and not all(_fits(value, dtype) for value in (a, b)):
        dtype = wide(dtype)
    if dtype == torch.bool:
        operation = _ON_BOOLS[operation]
    a, b = ctx.operands(a, b, dtype=dtype, rank=ctx.output.dim())
    return ctx.cast(ctx.elementwise(operation, a, b), ctx.output.dtype)


def scaled(ctx: Context, value: Any, factor: Any) -> Any:
    """Return `value * factor`, where `factor` is the alpha or beta of an operator."""
    if isinstance(factor, (int, float)):
        if factor == 1:
            return value
        if isinstance(value, (int, float)):
            return value * factor
    return arithmetic(ctx, "PROD", value, factor)


def _fits(value: Any, dtype: torch.dtype) -> bool:
    """Return whether `dtype` holds a number exactly. Infinities, NaN and tensors count as held."""
    if isinstance(value, torch.SymInt):
        return False
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return True
    return torch.tensor(value, dtype=torch.float64).to(dtype).item() == value


def _bools_unscaled(alpha: Any, node: torch.fx.Node) -> str | None:
    if node.meta["val"].dtype == torch.bool and alpha != 1:
        return f"alpha={alpha} scales a sum of bools"
    return None


@converts(aten.add.Tensor, aten.add.Scalar, check=_bools_unscaled, constants=("x", "other"))
def add(ctx: Context, x: Any, other: Any, alpha: Any) -> Any:
    """add(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return _combined(ctx, "SUM", x, other, alpha)


@converts(aten.sub.Tensor, aten.sub.Scalar, constants=("x", "other"))
def sub(ctx: Context, x: Any, other: Any, alpha: Any) -> Any:
    """sub(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return _combined(ctx, "SUB", x, other, alpha)


@converts(aten.rsub.Tensor, aten.rsub.Scalar, constants=("x", "other"))
def rsub(ctx: Context, x: Any, other: Any, alpha: Any) -> Any:
    """rsub(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor: other - alpha * self"""
    return _combined(ctx, "SUB", other, x, alpha)


def _combined(ctx: Context, operation: str, a: Any, b: Any, alpha: Any) -> Any:
    """Return `a + alpha * b` or `a - alpha * b`."""
    if isinstance(alpha, (int, float)) and alpha == 1:
        return arithmetic(ctx, operation, a, b)
    return _scaled_and_combined(ctx, operation, a, b, alpha)


@in_float32
def _scaled_and_combined(ctx: Context, operation: str, a: Any, b: Any, alpha: Any) -> Any:
    return arithmetic(ctx, operation, a, scaled(ctx, b, alpha))


@converts(*_OPERATIONS, constants=("x", "other"))
def binary(ctx: Context, x: Any, other: Any) -> Any:
    """mul(Tensor self, Tensor other) -> Tensor"""
    return arithmetic(ctx, _OPERATIONS[ctx.target], x, other)


@converts(aten.square.default)
def square(ctx: Context, x: Any) -> Any:
    """square(Tensor self) -> Tensor"""
    return arithmetic(ctx, "PROD", x, x)


@converts(aten.lerp.Scalar, constants=("x", "end"))
@in_float32
def lerp(ctx: Context, x: Any, end: Any, weight: float) -> Any:
    """lerp(Tensor self, Tensor end, Scalar weight) -> Tensor, from the nearer end as torch does"""
    x, end = ctx.operands(x, end, dtype=ctx.output.dtype, rank=ctx.output.dim())
    difference = arithmetic(ctx, "SUB", end, x)
    if abs(weight) < 0.5:
        return arithmetic(ctx, "SUM", x, scaled(ctx, difference, weight))
    return arithmetic(ctx, "SUB", end, scaled(ctx, difference, 1 - weight))


@converts(aten.lerp.Tensor, constants=("x", "end", "weight"))
@in_float32
def lerp_by_tensor(ctx: Context, x: Any, end: Any, weight: Any) -> Any:
    """lerp(Tensor self, Tensor end, Tensor weight) -> Tensor, from the nearer end as torch does"""
    dtype, rank = ctx.output.dtype, ctx.output.dim()
    x, end, weight = ctx.operands(x, end, weight, dtype=dtype, rank=rank)
    half, one = ctx.scalar(0.5, dtype, rank), ctx.scalar(1, dtype, rank)
    near = ctx.elementwise("LESS", ctx.unary("ABS", weight), half)
    base = ctx.net.add_select(near, x, end).get_output(0)
    shifted = ctx.elementwise("SUB", weight, one)
    factor = ctx.net.add_select(near, weight, shifted).get_output(0)
    step = ctx.elementwise("PROD", factor, ctx.elementwise("SUB", end, x))
    return ctx.elementwise("SUM", base, step)


@converts(*_SCALED_TERMS, constants=("x", "tensor1", "tensor2"))
@in_float32
def add_scaled_term(ctx: Context, x: Any, tensor1: Any, tensor2: Any, value: Any) -> Any:
    """addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    term = arithmetic(ctx, _SCALED_TERMS[ctx.target], scaled(ctx, tensor1, value), tensor2)
    return arithmetic(ctx, "SUM", x, term)
