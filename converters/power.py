"""Convert powers: simple exponents to products and roots, other exponents of floats to POW."""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import in_float32
from ..registry import converts
from .elementwise import arithmetic

aten = torch.ops.aten

_LAYERS = {
    0.5: ("SQRT",),
    -0.5: ("SQRT", "RECIP"),
    -1: ("RECIP",),
}
_MOST_FACTORS_OF_FLOATS = 4
_MOST_FACTORS_OF_INTEGERS = 16


def _exact_integers(x: Any, exponent: Any, node: torch.fx.Node) -> str | None:
    dtype = node.meta["val"].dtype
    if dtype.is_floating_point:
        return None
    if isinstance(x, torch.Tensor) and _is_count(exponent, _MOST_FACTORS_OF_INTEGERS):
        return None
    by = exponent if isinstance(exponent, int) else "a tensor"
    return f"pow gives {dtype} exactly only for exponents from 1 to 16, not for {by}"


def _is_count(exponent: Any, limit: int) -> bool:
    return (
        isinstance(exponent, (int, float))
        and not isinstance(exponent, bool)
        and exponent in range(1, limit + 1)
    )


@converts(aten.pow.Tensor_Scalar, check=_exact_integers)
def pow_scalar(ctx: Context, x: Any, exponent: Any) -> Any:
    """pow(Tensor self, Scalar exponent) -> Tensor"""
    dtype = ctx.output.dtype
    floats = dtype.is_floating_point
    limit = _MOST_FACTORS_OF_FLOATS if floats else _MOST_FACTORS_OF_INTEGERS
    if exponent in (1, 2) and floats:
        return _product(ctx, ctx.cast(x, dtype), int(exponent))
    if _is_count(exponent, limit):
        return _many_factors(ctx, x, int(exponent))
    if isinstance(exponent, (int, float)) and exponent in _LAYERS:
        return _roots(ctx, x, exponent)
    return arithmetic(ctx, "POW", x, exponent)


@in_float32
def _many_factors(ctx: Context, x: Any, count: int) -> Any:
    return _product(ctx, ctx.cast(x, ctx.output.dtype), count)


@in_float32
def _roots(ctx: Context, x: Any, exponent: float) -> Any:
    x = ctx.cast(x, ctx.output.dtype)
    for operation in _LAYERS[exponent]:
        x = ctx.unary(operation, x)
    return x


@converts(
    aten.pow.Tensor_Tensor,
    aten.pow.Scalar,
    check=_exact_integers,
    constants=("x", "exponent"),
)
def pow_tensor(ctx: Context, x: Any, exponent: Any) -> Any:
    """pow(Tensor self, Tensor exponent) -> Tensor"""
    return arithmetic(ctx, "POW", x, exponent)


def _product(ctx: Context, x: Any, count: int) -> Any:
    """Return the power `count` of `x` by repeated squaring."""
    if count == 1:
        return x
    half = _product(ctx, x, count // 2)
    square = ctx.elementwise("PROD", half, half)
    return ctx.elementwise("PROD", square, x) if count % 2 else square
