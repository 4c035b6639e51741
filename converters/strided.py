"""Convert picking elements by their offsets in memory to a strided SLICE or one GATHER."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..graph.sizes import Size, is_static
from ..registry import converts
from .shape import reshape

aten = torch.ops.aten


def _static_plane(x: torch.Tensor, offset: int, dim1: int, dim2: int) -> str | None:
    sizes = (x.shape[dim1], x.shape[dim2])
    return None if all(map(is_static, sizes)) else f"the diagonal of {sizes} is not static"


@converts(aten.diagonal.default, check=_static_plane)
def diagonal(ctx: Context, x: Any, offset: int, dim1: int, dim2: int) -> Any:
    """diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)"""
    shape = ctx.fake("x").shape
    plane = [dim1 % len(shape), dim2 % len(shape)]
    order = [*(d for d in range(len(shape)) if d not in plane), *plane]
    rest, (height, width) = [shape[d] for d in order[:-2]], (int(shape[d]) for d in plane)
    flat = ctx.reshape(x, [*rest, height * width], transpose=order)
    start = offset if offset >= 0 else -offset * width
    # The last dimension of the output is the diagonal.
    stride = [*[1] * len(rest), width + 1]
    return ctx.slice(flat, [*[0] * len(rest), start], ctx.output.shape, stride)


def _places(
    x: torch.Tensor, size: Sequence[Size], stride: Sequence[Size], storage_offset: Size | None
) -> torch.Tensor:
    """Return, for each element of the result, its index among the flattened elements of `x`."""
    first = 0 if storage_offset is None else int(storage_offset) - int(x.storage_offset())
    places = torch.tensor(first)
    for count, step in zip(size, stride, strict=True):
        places = places.unsqueeze(-1) + torch.arange(int(count)) * int(step)
    return places


def _contiguous(
    x: torch.Tensor, size: Sequence[Size], stride: Sequence[Size], storage_offset: Size | None
) -> str | None:
    numbers = [*x.shape, *size, *stride, *([] if storage_offset is None else [storage_offset])]
    if not all(map(is_static, numbers)):
        return "a size or a stride is dynamic"
    if not x.is_contiguous():
        return f"the tensor's own strides are {tuple(x.stride())}"
    places = _places(x, size, stride, storage_offset)
    if int(places.min()) < 0 or int(places.max()) >= x.numel():
        return "it reaches beyond the tensor, into what shares its memory"
    return None


@converts(aten.as_strided.default, check=_contiguous)
def as_strided(
    ctx: Context,
    x: Any,
    size: Sequence[Size],
    stride: Sequence[Size],
    storage_offset: Size | None,
) -> Any:
    """as_strided(Tensor(a) self, SymInt[] size, SymInt[] stride, SymInt? storage_offset=None)"""
    fake = ctx.fake("x")
    places = _places(fake, size, stride, storage_offset)
    if torch.equal(places.flatten(), torch.arange(fake.numel())):
        return reshape(ctx, x, fake.shape, ctx.output.shape)
    flat = reshape(ctx, x, fake.shape, [fake.numel()])
    index = ctx.tensor(places.to(ctx.features.shape_dtype))
    return ctx.net.add_gather(flat, index, 0).get_output(0)
