"""Convert tensors made from numbers to a constant, a SLICE of one element, or a FILL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from ..conversion.checks import dense, dtype_of_output
from ..conversion.context import Context
from ..engines.features import Features
from ..graph.sizes import Size, is_static, is_unbacked
from ..registry import converts
from .shape import expand_to

__all__ = ["linspace"]

aten = torch.ops.aten

_FILLS: dict[Any, int] = {
    aten.zeros.default: 0,
    aten.zeros_like.default: 0,
    aten.new_zeros.default: 0,
    aten.ones.default: 1,
    aten.ones_like.default: 1,
    aten.new_ones.default: 1,
}

Number = bool | int | float | torch.SymInt


def _any_device(device: torch.device | None = None) -> str | None:
    """Accept any device: the output's device is checked for every node."""
    return None


def _any_size(
    x: torch.Tensor | None = None,
    size: Sequence[Size] = (),
    memory_format: torch.memory_format | None = None,
) -> str | None:
    """Accept all of them: the converter reads the shape off the output."""
    return None


_PLACED = (dense, dtype_of_output, _any_device)


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
    """Repeat one constant element, `value`, in the shape of the node's output."""
    sizes = ctx.output.shape
    (one,) = ctx.operands(value, dtype=ctx.output.dtype, rank=len(sizes))
    return expand_to(ctx, one, [1] * len(sizes), sizes)


@converts(
    aten.full.default,
    aten.full_like.default,
    aten.new_full.default,
    aten.fill.Scalar,
    aten.scalar_tensor.default,
    check=(*_PLACED, _any_size, _known_numbers, _finite_numbers),
    renamed={"value": "fill_value", "s": "fill_value"},
)
def full(ctx: Context, fill_value: Number) -> Any:
    """full(SymInt[] size, Scalar fill_value, *, ...) -> Tensor"""
    return _fill(ctx, fill_value)


@converts(*_FILLS, check=(*_PLACED, _any_size))
def zeros_or_ones(ctx: Context) -> Any:
    """zeros(SymInt[] size, *, ...) -> Tensor"""
    return _fill(ctx, _FILLS[ctx.target])


@converts(
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    check=(*_PLACED, _known_numbers, _finite_numbers),
)
def arange(ctx: Context, end: Number, start: Number = 0, step: Number = 1) -> Any:
    """arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ...) -> Tensor"""
    # The output's shape already accounts for `end`.
    return _range(ctx, start, step)


def _range(ctx: Context, start: Number, step: Number) -> Any:
    """Return start, start + step, and so on; for integers torch truncates both first."""
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
    """Return a dynamic number of values, `count`: start, start + step, and so on."""
    operation = ctx.trt.FillOperation.LINSPACE
    # A layer that takes no type has the type of its inputs.
    types = () if ctx.features.weakly_typed else (ctx.features.to_trt(dtype),)
    layer = ctx.net.add_fill((1,), operation, *types)
    layer.set_input(0, ctx.shapes.size(count))
    layer.set_input(1, ctx.operands(start, dtype=dtype, rank=0)[0])
    layer.set_input(2, ctx.operands(step, dtype=dtype, rank=1)[0])
    return layer.get_output(0)
