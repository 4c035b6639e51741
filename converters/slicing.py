"""Convert taking parts of a dimension to SLICE, or to GATHER for one element of a dynamic one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.checks import reads_output, sizes_known
from ..conversion.context import Context
from ..graph.sizes import Size, hint, is_static, is_unbacked
from ..registry import converts
from .shape import same_size, unsqueeze_at, view_as

aten = torch.ops.aten


def _bound(index: Size | None, size: Size, default: Size) -> Size:
    """Count a bound of a slice from the front and clamp it to the dimension's `size`.

    The example's sizes decide which way it is clamped: torch has guarded on that while tracing.
    """
    if index is None:
        return default
    if is_static(index) and int(index) >= sys.maxsize:
        return size
    if hint(index) < 0:
        index = index + size
    if hint(index) < 0:
        return 0
    return size if hint(index) > hint(size) else index


def _window(ctx: Context, x: Any, shape: Sequence[Size], dim: int, part: slice) -> Any:
    """Return `x[..., part, ...]` at `dim`; `part.stop` is the size of the part, not its end."""
    start: list[Size] = [0] * len(shape)
    sizes, stride = list(shape), [1] * len(shape)
    start[dim], sizes[dim], stride[dim] = part.start, part.stop, part.step or 1
    if same_size(part.start, 0) and same_size(part.stop, shape[dim]):
        return x
    return ctx.slice(x, start, sizes, stride)


def _start_known(x: torch.Tensor, dim: int, start: Size | None) -> str | None:
    """Decline a start other than 0 in a dimension whose size depends on data."""
    size = x.shape[dim]
    if is_unbacked(size) and not (start is None or same_size(start, 0)):
        return f"start={start} of the size {size}, which depends on data"
    return None


def _step_known(step: Size) -> str | None:
    return None if is_static(step) else f"step={step} is not known"


@converts(aten.slice.Tensor, check=(sizes_known, _start_known, _step_known))
def slice_(ctx: Context, x: Any, dim: int, start: Size | None, end: Size | None, step: int) -> Any:
    """slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None,
    SymInt step=1) -> Tensor(a)"""
    shape = ctx.fake("x").shape
    first = _bound(start, shape[dim], 0)
    # The output's shape already accounts for `end`.
    part = slice(first, ctx.output.shape[dim], int(step))
    return _window(ctx, x, shape, dim % len(shape), part)


@converts(aten.select.int, check=sizes_known)
def select(ctx: Context, x: Any, dim: int, index: Size) -> Any:
    """select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)"""
    return _select(ctx, x, dim, index)


def _select(ctx: Context, x: Any, dim: int, index: Size) -> Any:
    """Pick one element along `dim`, and remove that dimension.

    A GATHER needs no sizes of dynamic tensors; a SLICE of static ones fuses better.
    """
    shape = ctx.fake("x").shape
    dim %= len(shape)
    index = index + shape[dim] if hint(index) < 0 else index
    if all(map(is_static, [*shape, index])):
        part = _window(ctx, x, shape, dim, slice(index, 1))
        old = [*shape[:dim], 1, *shape[dim + 1 :]]
        return view_as(ctx, part, old, [*shape[:dim], *shape[dim + 1 :]])
    (position,) = ctx.operands(index, dtype=ctx.features.shape_dtype, rank=0)
    return ctx.net.add_gather(x, position, dim).get_output(0)


def _read(ctx: Context) -> set[int]:
    """Return which of the node's results are read; the others need no layers."""
    return {i for i in range(len(ctx.output)) if reads_output(ctx.node, i)}


@converts(
    aten.split.Tensor,
    aten.split_with_sizes.default,
    renamed={"split_sizes": "split_size"},
)
def split(ctx: Context, x: Any, split_size: Any, dim: int) -> tuple[Any, ...]:
    """split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]"""
    # The outputs' shapes already account for `split_size`.
    shape = ctx.fake("x").shape
    read = _read(ctx)
    results: list[Any] = []
    start: Size = 0
    for i, fake in enumerate(ctx.output):
        size = fake.shape[dim]
        part = slice(start, size)
        results.append(_window(ctx, x, shape, dim % len(shape), part) if i in read else None)
        start = start + size
    return tuple(results)


@converts(aten.unbind.int)
def unbind(ctx: Context, x: Any, dim: int) -> tuple[Any, ...]:
    """unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]"""
    read = _read(ctx)
    return tuple(
        _select(ctx, x, dim, index) if index in read else None for index in range(len(ctx.output))
    )


def _steps_counted(x: torch.Tensor, dim: int, start: Size | None, step: Size) -> str | None:
    if is_static(step) and int(step) == 1:
        return None
    if is_static(step) and is_static(x.shape[dim]) and (start is None or is_static(start)):
        return None
    return f"step={step} from {start} along a dimension of the size {x.shape[dim]} is not static"


@converts(aten.slice_scatter.default, check=(sizes_known, _start_known, _steps_counted))
def slice_scatter(
    ctx: Context, x: Any, src: Any, dim: int, start: Size | None, end: Size | None, step: Size
) -> Any:
    """slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None,
    SymInt step=1) -> Tensor"""
    first = _bound(start, ctx.output.shape[dim], 0)
    if int(step) == 1:
        return _replace(ctx, x, src, dim, first)
    return _interleave(ctx, x, src, dim % ctx.output.dim(), int(first), int(step))


def _interleave(ctx: Context, x: Any, src: Any, dim: int, first: int, step: int) -> Any:
    """Write `src` to every `step`th index of `x`: concatenate both, and GATHER in the new order."""
    size, count = int(ctx.output.shape[dim]), int(ctx.fake("src").shape[dim])
    places = torch.arange(size)
    places[first : first + count * step : step] = torch.arange(size, size + count)
    both = ctx.net.add_concatenation([x, ctx.cast(src, ctx.output.dtype)])
    both.axis = dim
    index = ctx.constant(places.tolist(), ctx.features.shape_dtype)
    return ctx.net.add_gather(both.get_output(0), index, dim).get_output(0)


@converts(aten.select_scatter.default, check=sizes_known)
def select_scatter(ctx: Context, x: Any, src: Any, dim: int, index: Size) -> Any:
    """select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor"""
    shape = ctx.output.shape
    dim %= len(shape)
    index = index + shape[dim] if hint(index) < 0 else index
    return _replace(ctx, x, unsqueeze_at(ctx, src, ctx.fake("src").shape, dim), dim, index, 1)


def _replace(
    ctx: Context, x: Any, src: Any, dim: int, start: Size, size: Size | None = None
) -> Any:
    """Write `src` to `x` from `start` on along `dim`: concatenate what is before, `src`, what is
    after."""
    shape = ctx.output.shape
    dim %= len(shape)
    size = ctx.fake("src").shape[dim] if size is None else size
    src = ctx.cast(src, ctx.output.dtype)
    pieces = [] if same_size(start, 0) else [_window(ctx, x, shape, dim, slice(0, start))]
    pieces.append(src)
    after = shape[dim] - start - size
    if not same_size(after, 0):
        pieces.append(_window(ctx, x, shape, dim, slice(start + size, after)))
    if len(pieces) == 1:
        return src
    layer = ctx.net.add_concatenation(pieces)
    layer.axis = dim
    return layer.get_output(0)
