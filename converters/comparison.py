"""Comparisons in torch's promoted dtype, and logic on bools."""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts

__all__ = ["compare"]

aten = torch.ops.aten

_LOGIC = {
    aten.logical_and.default: "AND",
    aten.logical_or.default: "OR",
    aten.logical_xor.default: "XOR",
}
_BITWISE = {
    aten.bitwise_and.Tensor: "AND",
    aten.bitwise_and.Scalar: "AND",
    aten.bitwise_or.Tensor: "OR",
    aten.bitwise_or.Scalar: "OR",
    aten.bitwise_xor.Tensor: "XOR",
    aten.bitwise_xor.Scalar: "XOR",
}


def compare(ctx: Context, operation: str, x: Any, other: Any) -> Any:
    """EQUAL, GREATER or LESS of arguments `x` and `other`, as torch promotes them.

    Not EQUAL of two bools, which XOR tells apart.
    """
    a, b = _promoted(ctx, x, other)
    if ctx.dtype(a) == torch.bool:
        larger, smaller = (a, b) if operation == "GREATER" else (b, a)
        return ctx.elementwise("AND", larger, ctx.unary("NOT", smaller))
    return ctx.elementwise(operation, a, b)


def _promoted(ctx: Context, x: Any, other: Any) -> list[Any]:
    return ctx.operands(x, other, dtype=ctx.result_type("x", "other"), rank=ctx.output.dim())


def _compare_or_equal(ctx: Context, operation: str, opposite: str, x: Any, other: Any) -> Any:
    """For integers the opposite negated; floats may be unordered, so the two cases joined."""
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


@converts(aten.gt.Tensor, aten.gt.Scalar, constants=("x", "other"))
def gt(ctx: Context, x: Any, other: Any) -> Any:
    """gt(Tensor self, Tensor other) -> Tensor"""
    return compare(ctx, "GREATER", x, other)


@converts(aten.lt.Tensor, aten.lt.Scalar, constants=("x", "other"))
def lt(ctx: Context, x: Any, other: Any) -> Any:
    """lt(Tensor self, Tensor other) -> Tensor"""
    return compare(ctx, "LESS", x, other)


@converts(aten.ge.Tensor, aten.ge.Scalar, constants=("x", "other"))
def ge(ctx: Context, x: Any, other: Any) -> Any:
    """ge(Tensor self, Tensor other) -> Tensor"""
    return _compare_or_equal(ctx, "GREATER", "LESS", x, other)


@converts(aten.le.Tensor, aten.le.Scalar, constants=("x", "other"))
def le(ctx: Context, x: Any, other: Any) -> Any:
    """le(Tensor self, Tensor other) -> Tensor"""
    return _compare_or_equal(ctx, "LESS", "GREATER", x, other)


@converts(*_LOGIC, constants=("x", "other"))
def logical(ctx: Context, x: Any, other: Any) -> Any:
    """logical_and, logical_or, logical_xor: what is not zero is true"""
    a, b = ctx.operands(x, other, dtype=torch.bool, rank=ctx.output.dim())
    return ctx.elementwise(_LOGIC[ctx.node.target], a, b)  # type: ignore[index]  # its target is one of these


@converts(aten.logical_not.default)
def logical_not(ctx: Context, x: Any) -> Any:
    """logical_not(Tensor self) -> Tensor"""
    return ctx.unary("NOT", ctx.cast(x, torch.bool))


def _bools_only(node: torch.fx.Node) -> str | None:
    dtype = node.meta["val"].dtype
    return None if dtype == torch.bool else f"TensorRT has no bitwise layers for {dtype}"


@converts(*_BITWISE, check=_bools_only, constants=("x", "other"))
def bitwise(ctx: Context, x: Any, other: Any) -> Any:
    """bitwise_and, bitwise_or, bitwise_xor of bools"""
    a, b = ctx.operands(x, other, dtype=torch.bool, rank=ctx.output.dim())
    return ctx.elementwise(_BITWISE[ctx.node.target], a, b)  # type: ignore[index]  # its target is one of these


@converts(aten.bitwise_not.default, check=_bools_only)
def bitwise_not(ctx: Context, x: Any) -> Any:
    """bitwise_not(Tensor self) -> Tensor, of bools"""
    return ctx.unary("NOT", x)
