"""Elements in another order, or several times: SHUFFLE, and SLICE with a stride or wrap-around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import wide
from ..graph.sizes import (
    Size,
    is_static,
    is_unbacked,
)
from ..registry import converts
from .selection import select
from .shape import reshape

aten = torch.ops.aten

_MAX_RANK = 8


def _room_for_factors(x: torch.Tensor) -> str | None:
    # Splitting two dimensions, as the pixel operators do, needs two more.
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
    start: list[Size] = [0] * len(sizes)
    stride = [1] * len(sizes)
    for dim in dims if len(sizes) else ():
        start[dim], stride[dim] = sizes[dim] - 1, -1
    return ctx.slice(x, start, sizes, stride) if -1 in stride else x


def _shifts_known(shifts: Sequence[Size]) -> str | None:
    return f"shifts={list(shifts)} depends on data" if any(map(is_unbacked, shifts)) else None


@converts(aten.roll.default, check=_shifts_known)
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
    start = [
        s % n if is_static(s) and is_static(n) else s for s, n in zip(start, shape, strict=True)
    ]
    if all(is_static(s) and int(s) == 0 for s in start):
        return x
    return ctx.slice(x, start, shape, mode="WRAP")


def _repeats_known(repeats: Sequence[Size]) -> str | None:
    return f"repeats={list(repeats)} depends on data" if any(map(is_unbacked, repeats)) else None


@converts(aten.repeat.default, check=_repeats_known)
def repeat(ctx: Context, x: Any, repeats: Sequence[Size]) -> Any:
    """repeat(Tensor self, SymInt[] repeats) -> Tensor"""
    x = ctx.raise_rank(x, len(repeats))
    if all(is_static(count) and int(count) == 1 for count in repeats):
        return x
    return ctx.slice(x, [0] * len(repeats), ctx.output.shape, mode="WRAP")


def _has_cumulative(features: Any) -> str | None:
    return None if features.has("add_cumulative") else f"{features.version} has no CUMULATIVE layer"


@converts(aten.cumsum.default, check=_has_cumulative)
def cumsum(ctx: Context, x: Any, dim: int, dtype: torch.dtype | None) -> Any:
    """cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    # The output's dtype is `dtype`, or torch's promotion where there is none.
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


@converts(aten.tril.default, check=_static_matrix)
def tril(ctx: Context, x: Any, diagonal: Size) -> Any:
    """tril(Tensor self, SymInt diagonal=0) -> Tensor"""
    return select(ctx, torch.tril(_matrix(ctx), int(diagonal)), x, 0)


@converts(aten.triu.default, check=_static_matrix)
def triu(ctx: Context, x: Any, diagonal: Size) -> Any:
    """triu(Tensor self, SymInt diagonal=0) -> Tensor"""
    return select(ctx, torch.triu(_matrix(ctx), int(diagonal)), x, 0)


def _matrix(ctx: Context) -> torch.Tensor:
    return torch.ones([int(size) for size in ctx.output.shape[-2:]], dtype=torch.bool)
