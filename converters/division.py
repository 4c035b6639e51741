"""Convert division with all its roundings (true, floored, truncated) and the remainders."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts
from .elementwise import arithmetic
from .unary import truncated

aten = torch.ops.aten


def _whole_quotients(x: Any, other: Any, node: torch.fx.Node) -> str | None:
    """Decline where floor(a / b) might differ from torch's quotient by one.

    torch uses fmod, which is exact. A quotient is rounded first: 1.0 / 0.1 becomes 10. The
    rounding is harmless where dividing is exact, by a power of two. It is also harmless where all
    multiples of b up to the largest a are floats: a float16, divided in float32, is that small.
    """
    dtype = node.meta["val"].dtype
    if not dtype.is_floating_point:
        return None
    if isinstance(x, torch.Tensor) and isinstance(other, (int, float)):
        if math.frexp(other)[0] in (0.5, -0.5) and abs(other) >= 1:
            return None
        if dtype == torch.float16 and float(other).is_integer() and other != 0:
            return None
    by = "a tensor" if isinstance(other, torch.Tensor) else other
    return f"the floored quotient of {dtype} by {by} needs fmod, which TensorRT does not have"


def _modes(x: Any, other: Any, rounding_mode: str | None, node: torch.fx.Node) -> str | None:
    return _whole_quotients(x, other, node) if rounding_mode == "floor" else None


@converts(aten.div.Tensor, aten.div.Scalar, constants=("x", "other"))
def div(ctx: Context, x: Any, other: Any) -> Any:
    """div(Tensor self, Tensor other) -> Tensor"""
    return arithmetic(ctx, "DIV", x, other)


@converts(aten.div.Tensor_mode, aten.div.Scalar_mode, check=_modes, constants=("x", "other"))
def div_rounded(ctx: Context, x: Any, other: Any, rounding_mode: str | None) -> Any:
    """div(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor"""
    if rounding_mode is None:
        return div(ctx, x, other)
    dtype = ctx.output.dtype
    if rounding_mode == "trunc":
        # torch rounds the quotient to its dtype before it truncates.
        return _truncated(ctx, *ctx.operands(x, other, dtype=dtype, rank=ctx.output.dim()))
    a, b = _operands(ctx, x, other)
    quotient = _floored(ctx, a, b)
    if dtype.is_floating_point:
        # torch uses fmod, so that the floored quotient of an infinity is NaN, as inf - inf is.
        quotient = ctx.elementwise("SUM", quotient, ctx.elementwise("SUB", a, a))
    return ctx.cast(quotient, dtype)


@converts(
    aten.floor_divide.default,
    aten.floor_divide.Scalar,
    check=_whole_quotients,
    constants=("x", "other"),
)
def floor_divide(ctx: Context, x: Any, other: Any) -> Any:
    """floor_divide(Tensor self, Tensor other) -> Tensor"""
    return div_rounded(ctx, x, other, "floor")


@converts(
    aten.remainder.Tensor,
    aten.remainder.Scalar,
    aten.remainder.Scalar_Tensor,
    check=_whole_quotients,
    constants=("x", "other"),
)
def remainder(ctx: Context, x: Any, other: Any) -> Any:
    """remainder(Tensor self, Tensor other) -> Tensor, with the divisor's sign"""
    a, b = _operands(ctx, x, other)
    return _rest(ctx, a, b, _floored(ctx, a, b))


@converts(aten.fmod.Tensor, aten.fmod.Scalar, check=_whole_quotients, constants=("x", "other"))
def fmod(ctx: Context, x: Any, other: Any) -> Any:
    """fmod(Tensor self, Tensor other) -> Tensor, with the dividend's sign"""
    a, b = _operands(ctx, x, other)
    return _rest(ctx, a, b, _truncated(ctx, a, b))


def _operands(ctx: Context, x: Any, other: Any) -> list[Any]:
    """Return both operands, floats as float32: rounding to float16 may change the whole part."""
    dtype = ctx.output.dtype
    if dtype.is_floating_point:
        dtype = torch.float32
    return ctx.operands(x, other, dtype=dtype, rank=ctx.output.dim())


def _floored(ctx: Context, a: Any, b: Any) -> Any:
    return ctx.elementwise("FLOOR_DIV", a, b)


def _truncated(ctx: Context, a: Any, b: Any) -> Any:
    quotient = ctx.elementwise("DIV", a, b)
    return truncated(ctx, quotient) if ctx.dtype(a).is_floating_point else quotient


def _rest(ctx: Context, a: Any, b: Any, quotient: Any) -> Any:
    whole = ctx.elementwise("PROD", quotient, b)
    return ctx.cast(ctx.elementwise("SUB", a, whole), ctx.output.dtype)
