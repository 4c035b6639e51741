"""Convert comparisons, in torch's promoted dtype, and logic on bools."""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts

__all__ = ["compare"]

aten = torch.ops.aten

_LOGIC: dict[Any, str] = {
    aten.logical_and.default: "AND",
    aten.logical_or.default: "OR",
    aten.logical_xor.default: "XOR",
}
_ORDER: dict[Any, str] = {
    aten.gt.Tensor: "GREATER",
    aten.gt.Scalar: "GREATER",
    aten.lt.Tensor: "LESS",
    aten.lt.Scalar: "LESS",
}
_ORDER_OR_EQUAL: dict[Any, tuple[str, str]] = {
    aten.ge.Tensor: ("GREATER", "LESS"),
    aten.ge.Scalar: ("GREATER", "LESS"),
    aten.le.Tensor: ("LESS", "GREATER"),
    aten.le.Scalar: ("LESS", "GREATER"),
}
"""The strict comparison of each target, and the opposite strict comparison."""
_BITWISE: dict[Any, str] = {
    aten.bitwise_and.Tensor: "AND",
    aten.bitwise_and.Scalar: "AND",
    aten.bitwise_or.Tensor: "OR",
    aten.bitwise_or.Scalar: "OR",
    aten.bitwise_xor.Tensor: "XOR",
    aten.bitwise_xor.Scalar: "XOR",
}


def compare(ctx: Context, operation: str, x: Any, other: Any) -> Any:
    """Compare the arguments `x` and `other`, as torch promotes them.

    Args:
        operation: EQUAL, GREATER or LESS. Bools cannot be compared for EQUAL: XOR does that.
    """
    a, b = _promoted(ctx, x, other)
    if ctx.dtype(a) == torch.bool:
        larger, smaller = (a, b) if operation == "GREATER" else (b, a)
        return ctx.elementwise("AND", larger, ctx.unary("NOT", smaller))
    return ctx.elementwise(operation, a, b)


def _promoted(ctx: Context, x: Any, other: Any) -> list[Any]:
    return ctx.operands(x, other, dtype=ctx.result_type("x", "other"), rank=ctx.output.dim())


def _compare_or_equal(ctx: Context, operation: str, opposite: str, x: Any, other: Any) -> Any:
    """Return a >= b (or a <= b): not a < b for integers; for floats a > b or a == b, due to NaN."""
    if not ctx.result_type("x", "other").is_floating_point:
        return ctx.unary("NOT", compare(ctx, opposite, x, other))
    a, b = _promoted(ctx, x, other)
    return ctx.elementwise("OR", ctx.elementwise(operation, a, b), ctx.elementwise("EQUAL", a, b))


def _differ(ctx: Context, x: Any, other: Any) -> Any:
    return ctx.elementwise("XOR", *_promoted(ctx, x, other))


@converts(aten.eq.Tensor, aten.eq.Scalar, constants=("x", "other"))
def eq(ctx: Context, x: Any, other: Any) -> Any:
    """eq(Tensor self, Tensor other) -> Tensor"""
    if ctx.result_type("x", "other") == torch.bool:
        return ctx.unary("NOT", _differ(ctx, x, other))
    return compare(ctx, "EQUAL", x, other)


@converts(aten.ne.Tensor, aten.ne.Scalar, constants=("x", "other"))
def ne(ctx: Context, x: Any, other: Any) -> Any:
    """ne(Tensor self, Tensor other) -> Tensor"""
    if ctx.result_type("x", "other") == torch.bool:
        return _differ(ctx, x, other)
    return ctx.unary("NOT", compare(ctx, "EQUAL", x, other))


@converts(*_ORDER, constants=("x", "other"))
def order(ctx: Context, x: Any, other: Any) -> Any:
    """gt(Tensor self, Tensor other) -> Tensor"""
    return compare(ctx, _ORDER[ctx.target], x, other)


@converts(*_ORDER_OR_EQUAL, constants=("x", "other"))
def order_or_equal(ctx: Context, x: Any, other: Any) -> Any:
    """ge(Tensor self, Tensor other) -> Tensor"""
    operation, opposite = _ORDER_OR_EQUAL[ctx.target]
    return _compare_or_equal(ctx, operation, opposite, x, other)


@converts(*_LOGIC, constants=("x", "other"))
def logical(ctx: Context, x: Any, other: Any) -> Any:
    """logical_and(Tensor self, Tensor other) -> Tensor; all but zero is true"""
    a, b = ctx.operands(x, other, dtype=torch.bool, rank=ctx.output.dim())
    return ctx.elementwise(_LOGIC[ctx.target], a, b)


@converts(aten.logical_not.default)
def logical_not(ctx: Context, x: Any) -> Any:
    """logical_not(Tensor self) -> Tensor"""
    return ctx.unary("NOT", ctx.cast(x, torch.bool))


def _bools_only(node: torch.fx.Node) -> str | None:
    dtype = node.meta["val"].dtype
    return None if dtype == torch.bool else f"TensorRT has no bitwise layers for {dtype}"


@converts(*_BITWISE, check=_bools_only, constants=("x", "other"))
def bitwise(ctx: Context, x: Any, other: Any) -> Any:
    """bitwise_and(Tensor self, Tensor other) -> Tensor, of bools"""
    a, b = ctx.operands(x, other, dtype=torch.bool, rank=ctx.output.dim())
    return ctx.elementwise(_BITWISE[ctx.target], a, b)


@converts(aten.bitwise_not.default, check=_bools_only)
def bitwise_not(ctx: Context, x: Any) -> Any:
    """bitwise_not(Tensor self) -> Tensor, of bools"""
    return ctx.unary("NOT", x)
