"""Convert reordering and repeating of elements to SHUFFLE, and to SLICE with a stride or WRAP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.checks import dtype_of_output, has_layer, sizes_known
from ..conversion.context import Context
from ..conversion.opmath import wide
from ..graph.sizes import Size, is_static
from ..registry import converts
from .selection import select
from .shape import reshape

aten = torch.ops.aten

_TRIANGLES: dict[Any, Any] = {aten.tril.default: torch.tril, aten.triu.default: torch.triu}
_MAX_RANK = 8


def _room_for_factors(x: torch.Tensor) -> str | None:
    """Decline a tensor that cannot have two dimensions more, as when two of its own are split."""
    if x.dim() + 2 <= _MAX_RANK:
        return None
    return f"rank {x.dim()} leaves no room to split dimensions within TensorRT's {_MAX_RANK}"


@converts(aten.pixel_shuffle.default, check=_room_for_factors)
def pixel_shuffle(ctx: Context, x: Any, upscale_factor: int) -> Any:
    """pixel_shuffle(Tensor self, int upscale_factor) -> Tensor"""
    *batch, channels, height, width = ctx.fake("x").shape
    r, n = upscale_factor, len(batch)
    split = ctx.reshape(x, [*batch, channels // (r * r), r, r, height, width])
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return ctx.reshape(split, ctx.output.shape, transpose=order)


@converts(aten.pixel_unshuffle.default, check=_room_for_factors)
def pixel_unshuffle(ctx: Context, x: Any, downscale_factor: int) -> Any:
    """pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor"""
    *batch, channels, _, _ = ctx.fake("x").shape
    *_, height, width = ctx.output.shape
    r, n = downscale_factor, len(batch)
    split = ctx.reshape(x, [*batch, channels, height, r, width, r])
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return ctx.reshape(split, ctx.output.shape, transpose=order)


@converts(aten.channel_shuffle.default, check=_room_for_factors)
def channel_shuffle(ctx: Context, x: Any, groups: int) -> Any:
    """channel_shuffle(Tensor self, SymInt groups) -> Tensor"""
    batch, channels, *rest = ctx.fake("x").shape
    split = ctx.reshape(x, [batch, groups, channels // groups, *rest])
    order = [0, 2, 1, *range(3, 3 + len(rest))]
    return ctx.reshape(split, ctx.output.shape, transpose=order)


@converts(aten.flip.default)
def flip(ctx: Context, x: Any, dims: Sequence[int]) -> Any:
    """flip(Tensor self, int[] dims) -> Tensor"""
    sizes = ctx.output.shape
    if len(sizes) == 0 or len(dims) == 0:
        return x
    start: list[Size] = [0] * len(sizes)
    stride = [1] * len(sizes)
    for dim in dims:
        start[dim], stride[dim] = sizes[dim] - 1, -1
    return ctx.slice(x, start, sizes, stride)


@converts(aten.roll.default, check=sizes_known)
def roll(ctx: Context, x: Any, shifts: Sequence[Size], dims: Sequence[int]) -> Any:
    """roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor"""
    shape = ctx.output.shape
    if not len(shape):
        return x
    if dims:
        return _roll(ctx, x, shape, shifts, dims)
    flat = [ctx.output.numel()]
    rolled = _roll(ctx, reshape(ctx, x, shape, flat), flat, shifts, [0])
    return reshape(ctx, rolled, flat, shape)


def _roll(
    ctx: Context, x: Any, shape: Sequence[Size], shifts: Sequence[Size], dims: Sequence[int]
) -> Any:
    start: list[Size] = [0] * len(shape)
    for shift, dim in zip(shifts, dims, strict=True):
        start[dim] = start[dim] - shift
    for dim, (first, size) in enumerate(zip(start, shape, strict=True)):
        if is_static(first) and is_static(size):
            start[dim] = first % size
    if all(is_static(s) and int(s) == 0 for s in start):
        return x
    return ctx.slice(x, start, shape, mode="WRAP")


@converts(aten.repeat.default, check=sizes_known)
def repeat(ctx: Context, x: Any, repeats: Sequence[Size]) -> Any:
    """repeat(Tensor self, SymInt[] repeats) -> Tensor"""
    x = ctx.raise_rank(x, len(repeats))
    if all(is_static(count) and int(count) == 1 for count in repeats):
        return x
    return ctx.slice(x, [0] * len(repeats), ctx.output.shape, mode="WRAP")


@converts(aten.cumsum.default, check=(has_layer("add_cumulative"), dtype_of_output))
def cumsum(ctx: Context, x: Any, dim: int) -> Any:
    """cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    result = ctx.output.dtype
    x = ctx.cast(x, wide(result))
    rank = ctx.output.dim()
    if not rank:
        return ctx.cast(x, result)
    axis = ctx.scalar(dim % rank, torch.int32)
    operation = ctx.trt.CumulativeOperation.SUM
    total = ctx.net.add_cumulative(x, axis, operation, False, False).get_output(0)
    return ctx.cast(total, result)


def _static_matrix(x: torch.Tensor, diagonal: Size) -> str | None:
    if all(map(is_static, [*x.shape[-2:], diagonal])):
        return None
    return f"the triangle of {tuple(x.shape[-2:])} from diagonal {diagonal} is not static"


@converts(*_TRIANGLES, check=_static_matrix)
def triangle(ctx: Context, x: Any, diagonal: Size) -> Any:
    """tril(Tensor self, SymInt diagonal=0) -> Tensor"""
    matrix = torch.ones([int(size) for size in ctx.output.shape[-2:]], dtype=torch.bool)
    return select(ctx, _TRIANGLES[ctx.target](matrix, int(diagonal)), x, 0)
