"""Convert writing elements by index to SCATTER, and one value under a mask to SELECT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from ..conversion.context import Context, TensorLike
from ..graph.sizes import is_static
from ..graph.weights import attribute
from ..registry import arguments_of, converts
from .elementwise import arithmetic
from .indexing import (
    IndexPlan,
    plan_index,
    positions,
)
from .selection import select
from .shape import expand_to, same_size

aten = torch.ops.aten


@converts(aten.scatter.src)
def scatter_src(ctx: Context, x: Any, dim: int, index: Any, src: Any) -> Any:
    """scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    sizes, old = ctx.fake("index").shape, ctx.fake("src").shape
    if len(sizes) == len(old) and not all(map(same_size, old, sizes)):
        src = ctx.slice(src, [0] * len(sizes), sizes)
    return _scatter(ctx, x, dim, index, src)


@converts(aten.scatter.value)
def scatter_value(ctx: Context, x: Any, dim: int, index: Any, value: Any) -> Any:
    """scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    sizes = ctx.fake("index").shape
    (one,) = ctx.operands(value, dtype=ctx.output.dtype, rank=len(sizes))
    return _scatter(ctx, x, dim, index, expand_to(ctx, one, [1] * len(sizes), sizes))


def _scatter(ctx: Context, x: Any, dim: int, index: Any, src: Any) -> Any:
    # Neither torch nor TensorRT defines which of several elements with one index is kept.
    rank = max(ctx.output.dim(), 1)
    x, index, src = (ctx.raise_rank(tensor, rank) for tensor in (x, index, src))
    layer = ctx.net.add_scatter(x, index, src, ctx.trt.ScatterMode.ELEMENT)
    layer.axis = dim % rank
    result = layer.get_output(0)
    return result if ctx.output.dim() else ctx.reshape(result, ())


def _adds_once(accumulate: bool, node: Node) -> str | None:
    """Decline an accumulation in which an index may occur twice.

    SCATTER replaces: the sum is written as what was there plus one value.
    """
    if not accumulate:
        return None
    dtype = node.meta["val"].dtype
    if dtype == torch.bool:
        return "accumulate=True of bools"
    indices = [index for index in arguments_of(node)["indices"] if index is not None]
    if any(index.meta["val"].dtype == torch.bool for index in indices):
        return None
    if not all(index.op == "get_attr" for index in indices):
        return "accumulate=True adds up where an index comes twice, and SCATTER does not"
    module = node.graph.owning_module
    assert module is not None
    sizes = [node.meta["val"].shape[dim] for dim in _indexed(arguments_of(node)["indices"])]
    if not all(map(is_static, sizes)):
        return "accumulate=True in a dimension of a dynamic size"
    values = [
        attribute(module, index) % int(size) for index, size in zip(indices, sizes, strict=True)
    ]
    shape = torch.broadcast_shapes(*(value.shape for value in values))  # type: ignore[no-untyped-call]  # untyped torch API
    columns = (value.expand(shape).flatten().tolist() for value in values)
    places = list(zip(*columns, strict=True))
    if len(set(places)) < len(places):
        return "accumulate=True adds up, and an index comes twice"
    return None


def _indexed(indices: Sequence[Any]) -> list[int]:
    return [dim for dim, index in enumerate(indices) if index is not None]


def _places_known(
    x: torch.Tensor, indices: Sequence[torch.Tensor | None], values: torch.Tensor
) -> str | None:
    tensors = [index for index in indices if index is not None]
    if not tensors:
        return "no dimension has an index"
    if not any(index.dtype == torch.bool for index in tensors):
        return None
    if len(tensors) > 1:
        return "a bool mask beside another index depends on data"
    if not all(is_static(size) and int(size) == 1 for size in values.shape):
        return f"how {tuple(values.shape)} values spread over a bool mask depends on data"
    return None


@converts(aten.index_put.default, check=(_adds_once, _places_known), constants=("indices",))
def index_put(
    ctx: Context, x: Any, indices: Sequence[TensorLike | None], values: Any, accumulate: bool
) -> Any:
    """index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor"""
    fakes = ctx.fake("indices")
    dim = next(i for i, index in enumerate(indices) if index is not None)
    if fakes[dim].dtype == torch.bool:
        return _put_under_mask(ctx, x, indices[dim], dim, values, accumulate)
    plan = plan_index(ctx.fake("x"), fakes)
    ordered = plan.order == sorted(plan.order)
    data = x if ordered else ctx.permute(x, plan.order)
    updates = _updates(ctx, plan, values)
    places = positions(ctx, plan, indices)
    if accumulate:
        mode = ctx.trt.GatherMode.ND
        present = ctx.net.add_gather_v2(data, places, mode).get_output(0)
        updates = ctx.elementwise("SUM", present, updates)
    layer = ctx.net.add_scatter(data, places, updates, ctx.trt.ScatterMode.ND)
    result = layer.get_output(0)
    return result if ordered else ctx.permute(result, _inverse(plan.order))


def _put_under_mask(
    ctx: Context, x: Any, mask: TensorLike, dim: int, values: Any, accumulate: bool
) -> Any:
    sizes = ctx.fake("indices")[dim].shape
    after = ctx.output.dim() - dim - len(sizes)
    condition = ctx.tensor(mask)
    if after:
        condition = ctx.reshape(condition, [*sizes, *[1] * after])
    rank = len(values.shape)
    value = ctx.reshape(values, ()) if rank else values
    if accumulate:
        value = arithmetic(ctx, "SUM", x, value)
    return select(ctx, condition, value, x)


def _updates(ctx: Context, plan: IndexPlan, values: Any) -> Any:
    """Expand `values` to the shape of x[indices], with the index tensors' shape in front."""
    sizes = ctx.output.shape
    rest = [sizes[i] for i in plan.rest]
    result = [*rest[: plan.first], *plan.shape, *rest[plan.first :]]
    updates = expand_to(ctx, values, ctx.fake("values").shape, result)
    order = _inverse(plan.result_order)
    return updates if order == sorted(order) else ctx.permute(updates, order)


def _inverse(order: Sequence[int]) -> list[int]:
    return [order.index(i) for i in range(len(order))]
