"""Convert functions of one tensor, most of them to one UNARY layer."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.checks import is_floating
from ..conversion.context import Context
from ..conversion.opmath import in_float32
from ..engines.features import Features
from ..registry import converts

__all__ = ["is_nan", "truncated"]

aten = torch.ops.aten

_OF_FLOATS: dict[Any, str] = {
    aten.exp.default: "EXP",
    aten.log.default: "LOG",
    aten.sqrt.default: "SQRT",
    aten.reciprocal.default: "RECIP",
    aten.sin.default: "SIN",
    aten.cos.default: "COS",
    aten.tan.default: "TAN",
    aten.asin.default: "ASIN",
    aten.acos.default: "ACOS",
    aten.atan.default: "ATAN",
    aten.sinh.default: "SINH",
    aten.cosh.default: "COSH",
    aten.asinh.default: "ASINH",
    aten.acosh.default: "ACOSH",
    aten.atanh.default: "ATANH",
    aten.erf.default: "ERF",
}
_OF_NUMBERS: dict[Any, str] = {
    aten.abs.default: "ABS",
    aten.neg.default: "NEG",
    aten.sign.default: "SIGN",
    aten.sgn.default: "SIGN",
}
_LOGARITHM_BASES: dict[Any, int] = {aten.log2.default: 2, aten.log10.default: 10}
_ROUNDINGS: dict[Any, str] = {
    aten.floor.default: "FLOOR",
    aten.ceil.default: "CEIL",
    aten.round.default: "ROUND",
}


def _numbers_only(x: torch.Tensor) -> str | None:
    return "the tensor is of bools" if x.dtype == torch.bool else None


def _has_isinf(features: Features) -> str | None:
    if features.member("UnaryOperation", "ISINF"):
        return None
    return f"{features.version} has no ISINF"


@converts(*_OF_FLOATS)
def unary(ctx: Context, x: Any) -> Any:
    """exp(Tensor self) -> Tensor; integers and bools become floats first"""
    return ctx.unary(_OF_FLOATS[ctx.target], ctx.cast(x, ctx.output.dtype))


@converts(*_OF_NUMBERS, check=_numbers_only)
def unary_of_numbers(ctx: Context, x: Any) -> Any:
    """abs(Tensor self) -> Tensor, of floats and of integers"""
    return ctx.unary(_OF_NUMBERS[ctx.target], x)


@converts(*_ROUNDINGS, check=_numbers_only)
def rounding(ctx: Context, x: Any) -> Any:
    """floor(Tensor self) -> Tensor; integers stay as they are"""
    if not ctx.dtype(x).is_floating_point:
        return x
    return ctx.unary(_ROUNDINGS[ctx.target], x)


@converts(aten.trunc.default, check=_numbers_only)
def trunc(ctx: Context, x: Any) -> Any:
    """trunc(Tensor self) -> Tensor"""
    return truncated(ctx, x) if ctx.dtype(x).is_floating_point else x


@converts(aten.frac.default, check=is_floating)
def frac(ctx: Context, x: Any) -> Any:
    """frac(Tensor self) -> Tensor, with the sign of `self`"""
    return ctx.elementwise("SUB", x, truncated(ctx, x))


def truncated(ctx: Context, x: Any) -> Any:
    """Round floats towards zero."""
    whole = ctx.unary("FLOOR", ctx.unary("ABS", x))
    return ctx.elementwise("PROD", ctx.unary("SIGN", x), whole)


@converts(aten.rsqrt.default)
@in_float32
def rsqrt(ctx: Context, x: Any) -> Any:
    """rsqrt(Tensor self) -> Tensor"""
    return ctx.unary("RECIP", ctx.unary("SQRT", ctx.cast(x, ctx.output.dtype)))


@converts(*_LOGARITHM_BASES)
@in_float32
def logarithm(ctx: Context, x: Any) -> Any:
    """log2(Tensor self) -> Tensor"""
    base = _LOGARITHM_BASES[ctx.target]
    x, divisor = ctx.operands(x, math.log(base), dtype=ctx.output.dtype)
    return ctx.elementwise("DIV", ctx.unary("LOG", x), divisor)


@converts(aten.log1p.default)
@in_float32
def log1p(ctx: Context, x: Any) -> Any:
    """log1p(Tensor self) -> Tensor: 2 atanh(x / (x + 2)) near zero, where 1 + x loses x"""
    x, one, two, half = ctx.operands(x, 1, 2, 0.5, dtype=ctx.output.dtype)
    ratio = ctx.elementwise("DIV", x, ctx.elementwise("SUM", x, two))
    near = ctx.elementwise("PROD", ctx.unary("ATANH", ratio), two)
    far = ctx.unary("LOG", ctx.elementwise("SUM", x, one))
    is_near = ctx.elementwise("LESS", ctx.unary("ABS", x), half)
    return ctx.net.add_select(is_near, near, far).get_output(0)


@converts(aten.expm1.default)
@in_float32
def expm1(ctx: Context, x: Any) -> Any:
    """expm1(Tensor self) -> Tensor: tanh(x / 2) (exp(x) + 1), since exp(x) - 1 loses x near zero"""
    x, half, one = ctx.operands(x, 0.5, 1, dtype=ctx.output.dtype)
    tangent = ctx.activation("TANH", ctx.elementwise("PROD", x, half))
    return ctx.elementwise("PROD", tangent, ctx.elementwise("SUM", ctx.unary("EXP", x), one))


@converts(aten.isnan.default)
def isnan(ctx: Context, x: Any) -> Any:
    """isnan(Tensor self) -> Tensor"""
    return is_nan(ctx, x)


def is_nan(ctx: Context, x: Any) -> Any:
    """Return a bool tensor that is true where `x` is NaN, the only value unequal to itself."""
    if ctx.dtype(x).is_floating_point and ctx.features.member("UnaryOperation", "ISNAN"):
        return ctx.unary("ISNAN", x)
    return ctx.unary("NOT", ctx.elementwise("EQUAL", x, x))


@converts(aten.isinf.default, check=(is_floating, _has_isinf))
def isinf(ctx: Context, x: Any) -> Any:
    """isinf(Tensor self) -> Tensor"""
    return ctx.unary("ISINF", x)


@converts(aten.isfinite.default, check=is_floating)
def isfinite(ctx: Context, x: Any) -> Any:
    """isfinite(Tensor self) -> Tensor"""
    if not ctx.features.infinite_operands:
        odd = ctx.elementwise("OR", ctx.unary("ISINF", x), is_nan(ctx, x))
        return ctx.unary("NOT", odd)
    size, limit = ctx.operands(ctx.unary("ABS", x), math.inf, dtype=ctx.dtype(x))
    return ctx.elementwise("LESS", size, limit)


def is_infinity(ctx: Context, x: Any, infinity: float) -> Any:
    """Return a bool tensor that is true where `x` is `infinity`, which may be negative."""
    if ctx.features.infinite_operands:
        return ctx.elementwise("EQUAL", *ctx.operands(x, infinity, dtype=ctx.dtype(x)))
    comparison = "GREATER" if infinity > 0 else "LESS"
    signed = ctx.elementwise(comparison, *ctx.operands(x, 0.0, dtype=ctx.dtype(x)))
    return ctx.elementwise("AND", ctx.unary("ISINF", x), signed)
