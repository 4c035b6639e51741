"""Tensors made from numbers: a constant, a SLICE of stride 0 of one element, or a FILL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from ..conversion.context import Context
from ..engines.features import Features
from ..graph.sizes import (
    Size,
    is_static,
    is_unbacked,
)
from ..registry import converts
from .shape import expand_to

__all__ = ["linspace"]

aten = torch.ops.aten

Number = bool | int | float | torch.SymInt


def _dense(
    dtype: torch.dtype | None,
    layout: torch.layout | None,
    device: torch.device | None,
    pin_memory: bool | None,
) -> str | None:
    """Dtype and device are those of the output, which are checked for every node."""
    if layout not in (None, torch.strided):
        return f"layout={layout} is not dense"
    return "pin_memory=True is memory of the host" if pin_memory else None


def _known_numbers(node: Node) -> str | None:
    for argument in node.all_input_nodes:
        value = argument.meta["val"]
        if isinstance(value, (torch.Tensor, int, float)):
            continue
        if not isinstance(value, torch.SymInt) or is_unbacked(value):
            return f"{argument.name}={value} is not an integer known from the sizes"
    return None


def _finite_numbers(node: Node, features: Features) -> str | None:
    if features.infinite_operands or node.meta["val"].dtype != torch.float32:
        return None
    numbers = [*node.args, *node.kwargs.values()]
    if any(isinstance(number, float) and math.isinf(number) for number in numbers):
        return f"{features.version} makes an infinite operand finite"
    return None


def _fill(ctx: Context, value: Number) -> Any:
    """The node's output, every element `value`: one constant element, repeated."""
    sizes = ctx.output.shape
    (one,) = ctx.operands(value, dtype=ctx.output.dtype, rank=len(sizes))
    return expand_to(ctx, one, [1] * len(sizes), sizes)


@converts(aten.full.default, check=(_dense, _known_numbers, _finite_numbers))
def full(ctx: Context, size: Sequence[Size], fill_value: Number) -> Any:
    """full(SymInt[] size, Scalar fill_value, *, ...) -> Tensor"""
    return _fill(ctx, fill_value)


@converts(aten.zeros.default, check=_dense)
def zeros(ctx: Context, size: Sequence[Size]) -> Any:
    """zeros(SymInt[] size, *, ...) -> Tensor"""
    return _fill(ctx, 0)


@converts(aten.ones.default, check=_dense)
def ones(ctx: Context, size: Sequence[Size]) -> Any:
    """ones(SymInt[] size, *, ...) -> Tensor"""
    return _fill(ctx, 1)


@converts(aten.full_like.default, check=(_dense, _known_numbers, _finite_numbers))
def full_like(
    ctx: Context, x: Any, fill_value: Number, memory_format: torch.memory_format | None
) -> Any:
    """full_like(Tensor self, Scalar fill_value, *, ...) -> Tensor"""
    return _fill(ctx, fill_value)


@converts(aten.zeros_like.default, check=_dense)
def zeros_like(ctx: Context, x: Any, memory_format: torch.memory_format | None) -> Any:
    """zeros_like(Tensor self, *, ...) -> Tensor"""
    return _fill(ctx, 0)


@converts(aten.ones_like.default, check=_dense)
def ones_like(ctx: Context, x: Any, memory_format: torch.memory_format | None) -> Any:
    """ones_like(Tensor self, *, ...) -> Tensor"""
    return _fill(ctx, 1)


@converts(aten.new_full.default, check=(_dense, _known_numbers, _finite_numbers))
def new_full(ctx: Context, x: Any, size: Sequence[Size], fill_value: Number) -> Any:
    """new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ...) -> Tensor"""
    return _fill(ctx, fill_value)


@converts(aten.new_zeros.default, check=_dense)
def new_zeros(ctx: Context, x: Any, size: Sequence[Size]) -> Any:
    """new_zeros(Tensor self, SymInt[] size, *, ...) -> Tensor"""
    return _fill(ctx, 0)


@converts(aten.new_ones.default, check=_dense)
def new_ones(ctx: Context, x: Any, size: Sequence[Size]) -> Any:
    """new_ones(Tensor self, SymInt[] size, *, ...) -> Tensor"""
    return _fill(ctx, 1)


@converts(aten.fill.Scalar, check=(_known_numbers, _finite_numbers))
def fill_scalar(ctx: Context, x: Any, value: Number) -> Any:
    """fill.Scalar(Tensor self, Scalar value) -> Tensor"""
    return _fill(ctx, value)


@converts(aten.scalar_tensor.default, check=(_dense, _known_numbers, _finite_numbers))
def scalar_tensor(ctx: Context, s: Number) -> Any:
    """scalar_tensor(Scalar s, *, ...) -> Tensor"""
    return _fill(ctx, s)


@converts(aten.arange.default, check=(_dense, _known_numbers, _finite_numbers))
def arange(ctx: Context, end: Number) -> Any:
    """arange(Scalar end, *, ...) -> Tensor"""
    return _range(ctx, 0, 1)


@converts(aten.arange.start, check=(_dense, _known_numbers, _finite_numbers))
def arange_start(ctx: Context, start: Number, end: Number) -> Any:
    """arange.start(Scalar start, Scalar end, *, ...) -> Tensor"""
    return _range(ctx, start, 1)


@converts(aten.arange.start_step, check=(_dense, _known_numbers, _finite_numbers))
def arange_start_step(ctx: Context, start: Number, end: Number, step: Number) -> Any:
    """arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ...) -> Tensor"""
    return _range(ctx, start, step)


def _range(ctx: Context, start: Number, step: Number) -> Any:
    """start, start + step, ... as many as the output has; torch truncates both for integers."""
    (count,) = ctx.output.shape
    dtype = ctx.output.dtype
    if not dtype.is_floating_point:
        start, step = (n if isinstance(n, torch.SymInt) else int(n) for n in (start, step))
    if all(not isinstance(n, torch.SymInt) or is_static(n) for n in (start, step, count)):
        ramp = torch.arange(int(count), dtype=_exact(dtype))
        return ctx.tensor((ramp * _plain(step) + _plain(start)).to(dtype))
    wide = torch.float32 if dtype.is_floating_point else dtype
    return ctx.cast(linspace(ctx, count, wide, start, step), dtype)


def _plain(number: Number) -> int | float:
    return int(number) if isinstance(number, torch.SymInt) else number


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else torch.int64


def linspace(
    ctx: Context, count: Size, dtype: torch.dtype, start: Number = 0, step: Number = 1
) -> Any:
    """`count`, a dynamic size, numbers of `dtype`: start, start + step, ..."""
    operation = ctx.trt.FillOperation.LINSPACE
    # Where the layer takes no type, that of its inputs decides.
    types = () if ctx.features.weakly_typed else (ctx.features.to_trt(dtype),)
    layer = ctx.net.add_fill((1,), operation, *types)
    layer.set_input(0, ctx.shapes.size(count))
    layer.set_input(1, ctx.operands(start, dtype=dtype, rank=0)[0])
    layer.set_input(2, ctx.operands(step, dtype=dtype, rank=1)[0])
    return layer.get_output(0)
