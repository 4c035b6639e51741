"""Convert sorting, topk and extremes with indices to TOPK.

Among equal elements TensorRT may return another index than torch, which promises no order either.
TOPK does not define where NaN is sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.checks import has_dimensions, reads_output
from ..conversion.context import Context
from ..graph.sizes import Size, is_static
from ..registry import converts
from .reduction import reduce

aten = torch.ops.aten

_MAX_K = 3840


def _no_bools(x: torch.Tensor) -> str | None:
    return "TOPK takes no bools" if x.dtype == torch.bool else None


def _k_fits(k: Any) -> str | None:
    if not is_static(k):
        return f"k={k} is dynamic"
    return None if 1 <= k <= _MAX_K else f"k={k} is not within TOPK's 1 to {_MAX_K}"


def _length_fits(x: torch.Tensor, dim: int) -> str | None:
    size = x.shape[dim]
    if not is_static(size):
        return f"the sorted dimension has the dynamic size {size}"
    return None if size <= _MAX_K else f"{size} elements are more than TOPK's {_MAX_K}"


def _stable_values(node: torch.fx.Node, stable: bool | None = None) -> str | None:
    """Decline a stable sort whose indices are read; its values are those of any sort."""
    return "stable=True, TOPK is not stable" if stable and reads_output(node, 1) else None


_SORTABLE = (_no_bools, has_dimensions)


def _topk(
    ctx: Context,
    x: Any,
    k: int,
    dim: int,
    largest: bool,
    reads: Sequence[bool] = (True, True),
    row_sizes: Sequence[Size] | None = None,
) -> list[Any]:
    """Return TOPK's values and int64 indices, None for what nobody `reads`.

    The layer wants two dimensions: a 1-d `x` becomes a row, and what it gives gets `row_sizes`.
    """
    if len(x.shape) == 1:
        x, dim = ctx.reshape(x, (1, *x.shape)), 1
        row_sizes = (k,) if row_sizes is None else row_sizes
    operation = ctx.trt.TopKOperation.MAX if largest else ctx.trt.TopKOperation.MIN
    arguments = [x, operation, k, 1 << dim % len(x.shape)]
    if reads[1] and hasattr(ctx.trt.ITopKLayer, "indices_type"):
        arguments.append(ctx.features.to_trt(torch.int64))
    layer = ctx.net.add_topk(*arguments)
    outputs = [layer.get_output(i) if reads[i] else None for i in range(2)]
    if reads[1]:
        outputs[1] = ctx.cast(outputs[1], torch.int64)
    if row_sizes is not None:
        outputs = [None if y is None else ctx.reshape(y, row_sizes) for y in outputs]
    return outputs


def _both(node: torch.fx.Node) -> list[bool]:
    return [reads_output(node, 0), reads_output(node, 1)]


@converts(aten.topk.default, check=(*_SORTABLE, _k_fits))
def topk(ctx: Context, x: Any, k: Any, dim: int, largest: bool, sorted: bool) -> list[Any]:
    """topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True)

    TOPK always sorts, which `sorted=False` allows.
    """
    return _topk(ctx, x, int(k), dim, largest, _both(ctx.node))


@converts(
    aten.sort.default,
    aten.sort.stable,
    check=(*_SORTABLE, _length_fits, _stable_values),
)
def sort(ctx: Context, x: Any, dim: int, descending: bool) -> list[Any]:
    """sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) ->
    (Tensor values, Tensor indices); sort has no `stable`"""
    return _topk(ctx, x, int(ctx.fake("x").shape[dim]), dim, descending, _both(ctx.node))


@converts(
    aten.argsort.default,
    aten.argsort.stable,
    check=(*_SORTABLE, _length_fits, _stable_values),
)
def argsort(ctx: Context, x: Any, dim: int, descending: bool) -> Any:
    """argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) -> Tensor;
    argsort has no `stable`"""
    length = int(ctx.fake("x").shape[dim])
    return _topk(ctx, x, length, dim, descending, (False, True))[1]


@converts(aten.argmax.default, aten.argmin.default, check=_SORTABLE)
def arg_extreme(ctx: Context, x: Any, dim: int | None, keepdim: bool) -> Any:
    """argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    largest = ctx.target is aten.argmax.default
    if dim is None and len(x.shape) > 1:
        x = ctx.reshape(x, (1, -1))
        return _topk(ctx, x, 1, 1, largest, (False, True), row_sizes=ctx.output.shape)[1]
    return _first(ctx, x, dim or 0, keepdim, largest, (False, True), ctx.output.shape)[1]


@converts(aten.max.dim, aten.min.dim, check=_SORTABLE)
def extreme(ctx: Context, x: Any, dim: int, keepdim: bool) -> list[Any]:
    """max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    largest = ctx.target is aten.max.dim
    reads = _both(ctx.node)
    if not reads[1]:
        return [reduce(ctx, "MAX" if largest else "MIN", x, dim, keepdim), None]
    return _first(ctx, x, dim, keepdim, largest, reads, ctx.output[1].shape)


def _first(
    ctx: Context,
    x: Any,
    dim: int,
    keepdim: bool,
    largest: bool,
    reads: Sequence[bool],
    sizes: Sequence[Size],
) -> list[Any]:
    """Return the best element along `dim` and its index, both of `sizes`."""
    is_row = len(x.shape) == 1
    outputs = _topk(ctx, x, 1, dim, largest, reads, row_sizes=sizes if is_row else None)
    if keepdim or is_row:
        return outputs
    return [None if y is None else _drop(ctx, y, dim, sizes) for y in outputs]


def _drop(ctx: Context, x: Any, dim: int, sizes: Sequence[Size]) -> Any:
    """Return `x` without its dimension `dim` of size 1."""
    dynamic = [size for size in sizes if not is_static(size)]
    if len(dynamic) <= 1:
        return ctx.reshape(x, sizes)
    # A SHUFFLE would have to compute the other sizes; a REDUCE keeps them as they are.
    return reduce(ctx, "MAX", x, dim)
