"""Convert views in another shape to SHUFFLE, and expand to a SLICE of stride 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..graph.sizes import Size, is_static
from ..registry import converts

__all__ = ["expand_to", "reshape", "same_size", "unsqueeze_at", "view_as"]

aten = torch.ops.aten


def same_size(a: Size, b: Size) -> bool:
    """Return whether two sizes are known to be equal. Unlike `==`, this never adds a guard."""
    if is_static(a) or is_static(b):
        return is_static(a) and is_static(b) and int(a) == int(b)
    return bool(a.node.expr == b.node.expr)  # type: ignore[union-attr]  # neither is static


def reshape(ctx: Context, x: Any, old: Sequence[Size], new: Sequence[Size]) -> Any:
    """Reshape `x` from `old` to `new`; return `x` itself if they are the same."""
    if _same_sizes(old, new):
        return x
    sizes = _reshape_dims(old, new)
    if sizes is None:
        return ctx.reshape(x, new)
    layer = ctx.net.add_shuffle(x)
    layer.reshape_dims = sizes
    return layer.get_output(0)


def view_as(ctx: Context, x: Any, old: Sequence[Size], new: Sequence[Size]) -> Any:
    """Reshape like `reshape`, for the node's own result, which may extend the layer before it."""
    sizes = _reshape_dims(old, new)
    if sizes is None or _same_sizes(old, new):
        return reshape(ctx, x, old, new)
    return ctx.views.reshape(ctx.node, x, sizes)


def _same_sizes(old: Sequence[Size], new: Sequence[Size]) -> bool:
    return len(old) == len(new) and all(map(same_size, old, new))


def _reshape_dims(old: Sequence[Size], new: Sequence[Size]) -> tuple[int, ...] | None:
    """Return what SHUFFLE takes for `new`, or None if it needs a shape tensor.

    It needs none if at most one dynamic dimension changes its place.
    """
    sizes = []
    for i, size in enumerate(new):
        if is_static(size):
            sizes.append(int(size))
        elif i < len(old) and same_size(old[i], size):
            sizes.append(0)
        else:
            sizes.append(-1)
    return tuple(sizes) if sizes.count(-1) <= 1 else None


def _dynamic_count(sizes: Sequence[Size]) -> int:
    return len([size for size in sizes if not is_static(size)])


def unsqueeze_at(ctx: Context, x: Any, shape: Sequence[Size], dim: int) -> Any:
    """Insert a dimension of size 1 at `dim` >= 0 into `x`, whose shape is `shape`."""
    if _dynamic_count(shape[dim:]) > 1 and ctx.features.has("add_unsqueeze"):
        axes = ctx.constant([dim], ctx.features.shape_dtype)
        return ctx.net.add_unsqueeze(x, axes).get_output(0)
    return reshape(ctx, x, shape, [*shape[:dim], 1, *shape[dim:]])


def expand_to(ctx: Context, x: Any, old: Sequence[Size], new: Sequence[Size]) -> Any:
    """Broadcast `x`, whose shape is `old`, to the shape `new`."""
    missing = len(new) - len(old)
    x = ctx.raise_rank(x, len(new))
    old = [1] * missing + list(old)
    # Only a 1 grows. Any other size equals the new one, although it may be written in another way,
    # such as 32 * (s0 // 32) for s0.
    grown = [
        is_static(a) and int(a) == 1 and not same_size(a, b) for a, b in zip(old, new, strict=True)
    ]
    if not any(grown):
        return x
    return ctx.slice(x, [0] * len(new), new, [0 if grows else 1 for grows in grown])


@converts(aten.view.default, aten._unsafe_view.default)
def view(ctx: Context, x: Any, size: Sequence[Size]) -> Any:
    """view(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    # `size` may hold a -1, which the output's shape has resolved.
    return view_as(ctx, x, ctx.fake("x").shape, ctx.output.shape)


@converts(aten.squeeze.default)
def squeeze(ctx: Context, x: Any) -> Any:
    """squeeze(Tensor(a) self) -> Tensor(a)"""
    return _squeeze(ctx, x, list(range(len(x.shape))))


@converts(aten.squeeze.dim, aten.squeeze.dims)
def squeeze_dims(ctx: Context, x: Any, dim: int | Sequence[int]) -> Any:
    """squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)"""
    dims = [dim] if isinstance(dim, int) else list(dim)
    return _squeeze(ctx, x, dims)


def _squeeze(ctx: Context, x: Any, dims: Sequence[int]) -> Any:
    """Remove those of `dims` that have size 1; torch guards that a dynamic one has not."""
    shape = ctx.fake("x").shape
    removed = sorted({d % len(shape) for d in dims if shape and same_size(shape[d], 1)})
    if not removed:
        return x
    if _dynamic_count(shape[removed[0] :]) > 1 and ctx.features.has("add_squeeze"):
        axes = ctx.constant(removed, ctx.features.shape_dtype)
        return ctx.net.add_squeeze(x, axes).get_output(0)
    return view_as(ctx, x, shape, ctx.output.shape)


@converts(aten.unsqueeze.default)
def unsqueeze(ctx: Context, x: Any, dim: int) -> Any:
    """unsqueeze(Tensor(a) self, int dim) -> Tensor(a)"""
    shape = ctx.fake("x").shape
    if all(map(is_static, shape)):
        return view_as(ctx, x, shape, ctx.output.shape)
    return unsqueeze_at(ctx, x, shape, dim % ctx.output.dim())


@converts(aten.permute.default)
def permute(ctx: Context, x: Any, dims: Sequence[int]) -> Any:
    """permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    return _permute(ctx, x, [dim % len(dims) for dim in dims])


@converts(aten.transpose.int)
def transpose(ctx: Context, x: Any, dim0: int, dim1: int) -> Any:
    """transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    order = list(range(len(x.shape)))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(ctx, x, order)


@converts(aten.t.default)
def t(ctx: Context, x: Any) -> Any:
    """t(Tensor(a) self) -> Tensor(a)"""
    return _permute(ctx, x, list(reversed(range(len(x.shape)))))


def _permute(ctx: Context, x: Any, order: Sequence[int]) -> Any:
    return x if list(order) == sorted(order) else ctx.views.permute(ctx.node, x, order)


@converts(aten.expand.default)
def expand(ctx: Context, x: Any, size: Sequence[Size], implicit: bool) -> Any:
    """expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)"""
    # `size` may hold a -1, and `implicit` only says who asked for the expansion.
    return expand_to(ctx, x, ctx.fake("x").shape, ctx.output.shape)
