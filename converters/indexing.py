"""Convert picking elements by integer tensors to GATHER in its three modes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from ..conversion.context import Context, TensorLike
from ..graph.sizes import Size, is_static
from ..registry import arguments_of, converts
from .shape import (
    expand_to,
    same_size,
    unsqueeze_at,
)

__all__ = ["IndexPlan", "plan_index", "positions"]

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The elements that `x[indices]` picks.

    dims:   the dimensions of x that have an index tensor.
    shape:  the index tensors' common shape.
    first:  where `shape` comes in the result, in the place of `dims`.
    rest:   the dimensions of x that have none.
    """

    dims: tuple[int, ...]
    shape: tuple[Size, ...]
    first: int
    rest: tuple[int, ...]

    @property
    def order(self) -> list[int]:
        """Return the order that brings the indexed dimensions of x to the front."""
        return [*self.dims, *self.rest]

    @property
    def result_order(self) -> list[int]:
        """Return the order that brings the gathered dimensions, `shape` first, into the result's
        order."""
        count = len(self.shape)
        before = range(count, count + self.first)
        after = range(count + self.first, count + len(self.rest))
        return [*before, *range(count), *after]


def plan_index(x: torch.Tensor, indices: Sequence[torch.Tensor | None]) -> IndexPlan:
    """Plan `x[indices]` as torch does: where indices are not adjacent, their shape comes first."""
    dims = tuple(i for i, index in enumerate(indices) if index is not None)
    shapes = [index.shape for index in indices if index is not None]
    shape = _broadcast(shapes)
    adjacent = dims == tuple(range(dims[0], dims[-1] + 1))
    rest = tuple(i for i in range(x.dim()) if i not in dims)
    return IndexPlan(dims, shape, dims[0] if adjacent else 0, rest)


def _broadcast(shapes: Sequence[torch.Size]) -> tuple[int, ...]:
    """Return the shape that `shapes` broadcast to.

    torch.broadcast_shapes would ask whether a symbolic size is 1, and so add a guard that limits
    the graph to the example's answer.
    """
    rank = max(map(len, shapes))
    full = [[1] * (rank - len(shape)) + list(shape) for shape in shapes]
    columns = zip(*full, strict=True)
    wide = ([size for size in sizes if not is_static(size) or size != 1] for sizes in columns)
    return tuple(next(filter(is_static, sizes), sizes[0]) if sizes else 1 for sizes in wide)


def _integer_indices(indices: Sequence[torch.Tensor | None]) -> str | None:
    tensors = [index for index in indices if index is not None]
    if any(index.dtype == torch.bool for index in tensors):
        return "the size of the result of a bool mask depends on data"
    return None if tensors else "no dimension has an index"


@converts(aten.index.Tensor, check=_integer_indices, constants=("indices",))
def index(ctx: Context, x: Any, indices: Sequence[TensorLike | None]) -> Any:
    """index.Tensor(Tensor self, Tensor?[] indices) -> Tensor"""
    plan = plan_index(ctx.fake("x"), ctx.fake("indices"))
    if len(plan.dims) == 1:
        (dim,) = plan.dims
        return ctx.net.add_gather(x, ctx.tensor(_wrapped(ctx, indices, dim)), dim).get_output(0)
    if plan.order != sorted(plan.order):
        x = ctx.permute(x, plan.order)
    mode = ctx.trt.GatherMode.ND
    picked = ctx.net.add_gather_v2(x, positions(ctx, plan, indices), mode).get_output(0)
    order = plan.result_order
    return picked if order == sorted(order) else ctx.permute(picked, order)


def positions(ctx: Context, plan: IndexPlan, indices: Sequence[TensorLike | None]) -> Any:
    """Concatenate the index tensors along a new last dimension, with no negative index left."""
    wrapped = [_wrapped(ctx, indices, dim) for dim in plan.dims]
    if all(isinstance(index, torch.Tensor) for index in wrapped):
        shape = [int(size) for size in plan.shape]
        return ctx.tensor(torch.stack([index.expand(shape) for index in wrapped], dim=-1))
    columns = []
    for dim, index in zip(plan.dims, wrapped, strict=True):
        shape = ctx.fake("indices")[dim].shape
        whole = expand_to(ctx, ctx.tensor(index), shape, plan.shape)
        columns.append(unsqueeze_at(ctx, whole, plan.shape, len(plan.shape)))
    if len(columns) == 1:
        return columns[0]
    layer = ctx.net.add_concatenation(columns)
    layer.axis = len(plan.shape)
    return layer.get_output(0)


_POSITIONS = frozenset(
    {
        aten.arange.default,
        aten.argmax.default,
        aten.argmin.default,
        aten.argsort.default,
        aten.argsort.stable,
        aten.nonzero.default,
    }
)
_VALUES_AND_POSITIONS = frozenset(
    {
        aten.max.dim,
        aten.min.dim,
        aten.sort.default,
        aten.sort.stable,
        aten.topk.default,
    }
)
_REARRANGING = frozenset(
    {
        aten._to_copy.default,
        aten.alias.default,
        aten.clone.default,
        aten.detach.default,
        aten.expand.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.squeeze.dim,
        aten.unsqueeze.default,
        aten.view.default,
    }
)


def _counts_from_zero(value: Any) -> bool:
    """Return whether a node's integers are known to be 0 or more: positions, perhaps rearranged."""
    while isinstance(value, Node) and value.target in _REARRANGING:
        value = value.args[0]
    if not isinstance(value, Node):
        return False
    if value.target is operator.getitem:
        source, output = value.args
        assert isinstance(source, Node)
        return bool(output == 1) and source.target in _VALUES_AND_POSITIONS
    return value.target in _POSITIONS


def _index_node(ctx: Context, dim: int) -> Any:
    indices = arguments_of(ctx.node)["indices"]
    return indices[dim]


def _wrapped(ctx: Context, indices: Sequence[TensorLike | None], dim: int) -> TensorLike:
    """Return the index of `dim` in the dtype of shapes, with negative values counted from the
    front.

    TensorRT leaves open what a negative index picks.
    """
    dtype, size = ctx.features.shape_dtype, ctx.fake("x").shape[dim]
    value = indices[dim]
    if isinstance(value, torch.Tensor):
        if is_static(size):
            return torch.where(value < 0, value + int(size), value).to(dtype)
        if bool((value >= 0).all()):
            return value.to(dtype)
        value = ctx.tensor(value)
    value = ctx.cast(value, dtype)
    if _counts_from_zero(_index_node(ctx, dim)):
        return value
    zero, length = ctx.operands(0, size, dtype=dtype, rank=len(value.shape))
    negative = ctx.elementwise("LESS", value, zero)
    shifted = ctx.elementwise("SUM", value, length)
    return ctx.net.add_select(negative, shifted, value).get_output(0)


@converts(aten.index_select.default)
def index_select(ctx: Context, x: Any, dim: int, index: Any) -> Any:
    """index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    # Neither index_select nor embedding nor gather takes negative indices.
    rank = max(ctx.output.dim(), 1)
    x, index = ctx.raise_rank(x, rank), ctx.raise_rank(index, 1)
    picked = ctx.net.add_gather(x, index, dim % rank).get_output(0)
    return picked if ctx.output.dim() else ctx.reshape(picked, ())


@converts(aten.embedding.default)
def embedding(
    ctx: Context,
    weight: Any,
    indices: Any,
    padding_idx: Size,
    scale_grad_by_freq: bool,
    sparse: bool,
) -> Any:
    """embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1,
    bool scale_grad_by_freq=False, bool sparse=False) -> Tensor"""
    # The last three arguments only affect gradients.
    return ctx.net.add_gather(weight, indices, 0).get_output(0)


@converts(aten.gather.default)
def gather(ctx: Context, x: Any, dim: int, index: Any, sparse_grad: bool) -> Any:
    """gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor"""
    # `sparse_grad` only affects gradients.
    rank = max(ctx.output.dim(), 1)
    dim %= rank
    x, index = ctx.raise_rank(x, rank), ctx.raise_rank(index, rank)
    x = _cropped(ctx, x, list(ctx.fake("x").shape), ctx.fake("index").shape, dim)
    layer = ctx.net.add_gather_v2(x, index, ctx.trt.GatherMode.ELEMENT)
    layer.axis = dim
    picked = layer.get_output(0)
    return picked if ctx.output.dim() else ctx.reshape(picked, ())


def _cropped(ctx: Context, x: Any, old: Sequence[Size], index: Sequence[Size], dim: int) -> Any:
    """Crop `x` to the size of the index in every dimension except `dim`."""
    sizes = [a if i == dim else b for i, (a, b) in enumerate(zip(old, index, strict=False))]
    if all(same_size(a, b) for a, b in zip(old, sizes, strict=False)):
        return x
    return ctx.slice(x, [0] * len(sizes), sizes)
