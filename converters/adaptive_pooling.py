"""Convert pooling to a given size: to REDUCE, POOLING, or a product with averaging matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from ..conversion.checks import first_output_only, is_floating
from ..conversion.context import Context
from ..conversion.opmath import wide
from ..graph.metadata import known_equal
from ..graph.sizes import Size, is_static
from ..registry import converts
from .convolution import per_dimension
from .creation import linspace
from .pooling import Windows, add_pooling, spatial_sizes

aten = torch.ops.aten

_AVERAGE_POOLS: dict[Any, int] = {
    aten.adaptive_avg_pool1d.default: 1,
    aten.adaptive_avg_pool2d.default: 2,
    aten._adaptive_avg_pool2d.default: 2,
    aten.adaptive_avg_pool3d.default: 3,
    aten._adaptive_avg_pool3d.default: 3,
}
"""The number of trailing dimensions that each operator pools over."""


def _outputs(output_size: Sequence[Size], count: int) -> tuple[Size, ...]:
    return per_dimension(output_size, count)  # type: ignore[arg-type]  # SymInts stand for ints


def _reduces(sizes: Sequence[Size], outputs: Sequence[Size]) -> bool:
    """Return whether each dimension is averaged whole or left alone, so that no size need be
    known."""
    return all(
        known_equal(size, output) or (is_static(output) and int(output) == 1)
        for size, output in zip(sizes, outputs, strict=True)
    )


def _divides(sizes: Sequence[Size], outputs: Sequence[Size]) -> bool:
    pairs = list(zip(sizes, outputs, strict=True))
    return all(is_static(a) and is_static(b) and int(a) % int(b) == 0 for a, b in pairs)


def _average_sizes(x: torch.Tensor, output_size: Sequence[Size], node: Node) -> str | None:
    """Decline a dynamic number of windows, and in 3-D windows of different sizes."""
    count = _AVERAGE_POOLS[node.target]
    sizes, outputs = spatial_sizes(x, count), _outputs(output_size, count)
    if _reduces(sizes, outputs) or _divides(sizes, outputs):
        return None
    if count == 3:
        return f"{tuple(sizes)} is not known to be a multiple of {tuple(outputs)}"
    for size, output in zip(sizes, outputs, strict=True):
        if not known_equal(size, output) and not is_static(output):
            return f"the number of windows {output} is a dynamic size"
    return None


@converts(*_AVERAGE_POOLS, check=(is_floating, _average_sizes))
def adaptive_avg_pool(ctx: Context, x: Any, output_size: Sequence[Size]) -> Any:
    """adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor"""
    count = _AVERAGE_POOLS[ctx.target]
    sizes, outputs = spatial_sizes(ctx.fake("x"), count), _outputs(output_size, count)
    if _reduces(sizes, outputs):
        return _whole(ctx, x, "AVG", sizes, outputs)
    if _divides(sizes, outputs):
        return add_pooling(ctx, x, "AVERAGE", _equal_windows(sizes, outputs))
    return _average_by_matrices(ctx, x, sizes, outputs)


def _whole(
    ctx: Context, x: Any, operation: str, sizes: Sequence[Size], outputs: Sequence[Size]
) -> Any:
    first = len(x.shape) - len(sizes)
    axes = 0
    for dim, (size, output) in enumerate(zip(sizes, outputs, strict=True), first):
        if not known_equal(size, output):
            axes |= 1 << dim
    if axes == 0:
        return x
    reduction = getattr(ctx.trt.ReduceOperation, operation)
    dtype = ctx.dtype(x)
    x = ctx.cast(x, wide(dtype)) if operation == "AVG" else x
    return ctx.cast(ctx.net.add_reduce(x, reduction, axes, True).get_output(0), dtype)


def _equal_windows(sizes: Sequence[Size], outputs: Sequence[Size]) -> Windows:
    kernel = tuple(int(a) // int(b) for a, b in zip(sizes, outputs, strict=True))
    nothing = (0,) * len(kernel)
    return Windows(kernel, kernel, nothing, nothing)


def _average_by_matrices(
    ctx: Context, x: Any, sizes: Sequence[Size], outputs: Sequence[Size]
) -> Any:
    """Compute rows @ x @ columns^T, in float32, because float16 holds 1 / 3 too coarsely."""
    multiply = ctx.net.add_matrix_multiply
    plain, transposed = ctx.trt.MatrixOperation.NONE, ctx.trt.MatrixOperation.TRANSPOSE
    y = ctx.cast(x, torch.float32)
    if not known_equal(sizes[-1], outputs[-1]):
        columns = _averaging_matrix(ctx, sizes[-1], int(outputs[-1]), len(x.shape))
        y = multiply(y, plain, columns, transposed).get_output(0)
    if len(sizes) == 2 and not known_equal(sizes[0], outputs[0]):
        rows = _averaging_matrix(ctx, sizes[0], int(outputs[0]), len(x.shape))
        y = multiply(rows, plain, y, plain).get_output(0)
    return ctx.cast(y, ctx.dtype(x))


def _averaging_matrix(ctx: Context, size: Size, output: int, rank: int) -> Any:
    """Return the matrix whose row i averages one window.

    The window reaches from floor(i * size / output) to ceil((i + 1) * size / output).
    """
    number = torch.arange(output)[:, None]
    if is_static(size):
        starts, ends = number * int(size) // output, -(-(number + 1) * int(size) // output)
        position = torch.arange(int(size))
        inside = (position >= starts) & (position < ends)
        return ctx.operands(inside / (ends - starts), dtype=torch.float32, rank=rank)[0]
    whole = ctx.features.shape_dtype
    length, first, following, count, nearly = ctx.operands(
        *(size, number, number + 1, output, output - 1), dtype=whole, rank=2
    )
    starts = ctx.elementwise("FLOOR_DIV", ctx.elementwise("PROD", first, length), count)
    upper = ctx.elementwise("SUM", ctx.elementwise("PROD", following, length), nearly)
    ends = ctx.elementwise("FLOOR_DIV", upper, count)
    position = ctx.raise_rank(linspace(ctx, size, whole), 2)
    begun = ctx.unary("NOT", ctx.elementwise("LESS", position, starts))
    inside = ctx.elementwise("AND", begun, ctx.elementwise("LESS", position, ends))
    lengths = ctx.cast(ctx.elementwise("SUB", ends, starts), torch.float32)
    matrix = ctx.elementwise("DIV", ctx.cast(inside, torch.float32), lengths)
    return ctx.raise_rank(matrix, rank)


def _maximum_sizes(x: torch.Tensor, output_size: Sequence[Size]) -> str | None:
    sizes, outputs = spatial_sizes(x, 2), _outputs(output_size, 2)
    if _divides(sizes, outputs) or _reduces(sizes, outputs):
        return None
    return f"{tuple(sizes)} is not known to be a multiple of {tuple(outputs)}"


@converts(aten.adaptive_max_pool2d.default, check=(is_floating, _maximum_sizes, first_output_only))
def adaptive_max_pool2d(ctx: Context, x: Any, output_size: Sequence[Size]) -> tuple[Any, None]:
    """adaptive_max_pool2d(Tensor self, int[2] output_size) -> (Tensor, Tensor)"""
    sizes, outputs = spatial_sizes(ctx.fake("x"), 2), _outputs(output_size, 2)
    if _reduces(sizes, outputs):
        return _whole(ctx, x, "MAX", sizes, outputs), None
    return add_pooling(ctx, x, "MAX", _equal_windows(sizes, outputs)), None
