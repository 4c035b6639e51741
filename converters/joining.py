"""Convert putting tensors together along one dimension to CONCATENATION."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..registry import converts
from .shape import reshape, unsqueeze_at

aten = torch.ops.aten


@converts(aten.cat.default)
def cat(ctx: Context, tensors: Sequence[Any], dim: int) -> Any:
    """cat(Tensor[] tensors, int dim=0) -> Tensor"""
    return _concatenate(ctx, tensors, dim % ctx.output.dim())


@converts(aten.stack.default)
def stack(ctx: Context, tensors: Sequence[Any], dim: int) -> Any:
    """stack(Tensor[] tensors, int dim=0) -> Tensor"""
    fakes = ctx.fake("tensors")
    dim %= ctx.output.dim()
    if dim == ctx.output.dim() - 1 or len(tensors) == 1:
        raised = [
            unsqueeze_at(ctx, tensor, fake.shape, dim)
            for tensor, fake in zip(tensors, fakes, strict=True)
        ]
        return _concatenate(ctx, raised, dim)
    # One reshape of all of them is cheaper than one of each.
    joined = _concatenate(ctx, tensors, dim)
    shape = list(fakes[0].shape)
    shape[dim] = shape[dim] * len(tensors)
    return reshape(ctx, joined, shape, ctx.output.shape)


def _concatenate(ctx: Context, tensors: Sequence[Any], dim: int) -> Any:
    same = [ctx.cast(tensor, ctx.output.dtype) for tensor in tensors]
    if len(same) == 1:
        return same[0]
    layer = ctx.net.add_concatenation(same)
    layer.axis = dim
    return layer.get_output(0)
