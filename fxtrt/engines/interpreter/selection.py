"""Execute layers that pick elements by index or value: GATHER, SCATTER, TOPK, NON_ZERO, ONE_HOT."""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    layer,
)
from .reduce import axes_of


@layer("GATHER", "IGatherLayer")
def gather(layer: Layer) -> Compute:
    mode, axis, batch = layer.raw.mode.name, layer.raw.axis, layer.raw.num_elementwise_dims
    static = tuple(size >= 0 for size in layer.raw.get_input(0).shape)

    def compute(data: Tensor, indices: Tensor) -> Tensor:
        indices = indices.long()
        if mode == "ND":
            return _gather_nd(data, indices, batch, static)
        indices = _inside(indices, data.shape[axis], wraps=static[axis])
        if mode == "ELEMENT":
            return data.gather(axis, indices)
        if batch == 0:
            return _gather_default(data, indices, axis)
        count = max(data.shape[0], indices.shape[0])
        data = data.expand(count, *data.shape[1:])
        indices = indices.expand(count, *indices.shape[1:])
        rows = [_gather_default(d, i, axis - 1) for d, i in zip(data, indices, strict=True)]
        return torch.stack(rows)

    return compute


def _gather_default(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    taken = data.index_select(axis, indices.reshape(-1))
    return taken.reshape([*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]])


def _gather_nd(data: Tensor, indices: Tensor, batch: int, static: tuple[bool, ...]) -> Tensor:
    leading = indices.shape[:-1]
    rows: list[Tensor] = []
    for axis in range(batch):
        shape = [-1 if i == axis else 1 for i in range(len(leading))]
        rows.append(torch.arange(data.shape[axis], device=data.device).reshape(shape))
    columns = [
        _inside(column, data.shape[axis], wraps=static[axis])
        for axis, column in enumerate(indices.unbind(-1), start=batch)
    ]
    return data[tuple(rows + columns)]


def _inside(indices: Tensor, size: int, wraps: bool = False) -> Tensor:
    """Return `indices` in [0, size); negative ones count from the end if the layer `wraps` them.

    TensorRT wraps negative indices of an axis of static size only, and reads zero beyond either
    end. No PyTorch operator does that, so such an index is an error of the converter.
    """
    wrapped = torch.where(indices < 0, indices + size, indices) if wraps else indices
    outside = (wrapped < 0) | (wrapped >= size)
    if bool(outside.any()):
        raise IndexError(f"index {int(indices[outside][0])} is outside an axis of size {size}")
    return wrapped


@layer("SCATTER", "IScatterLayer")
def scatter(layer: Layer) -> Compute:
    mode, axis = layer.raw.mode.name, layer.raw.axis

    def compute(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        indices = indices.long()
        if mode == "ELEMENT":
            return data.scatter(axis, _inside(indices, data.shape[axis]), updates)
        columns = [_inside(column, data.shape[i]) for i, column in enumerate(indices.unbind(-1))]
        return data.index_put(tuple(columns), updates)

    return compute


@layer("TOPK", "ITopKLayer")
def topk(layer: Layer) -> Compute:
    raw = layer.raw
    (axis,) = axes_of(raw.axes, layer.rank())
    largest = raw.op.name == "MAX"
    static = None if layer.has(1) else int(raw.k)
    dtype = layer.output_dtype(1)

    def compute(x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
        count = (static or 0) if k is None else int(k)
        # TensorRT does not define the order of equal elements; here the first comes first.
        values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
        if count > x.shape[axis]:
            raise ValueError(
                f"k = {count} is more than the {x.shape[axis]} elements of axis {axis}"
            )
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count).to(dtype)

    return compute


@layer("NON_ZERO", "INonZeroLayer")
def non_zero(layer: Layer) -> Compute:
    dtype = layer.output_dtype()
    return lambda x: x.nonzero().T.to(dtype)


@layer("ONE_HOT", "IOneHotLayer")
def one_hot(layer: Layer) -> Compute:
    axis = layer.raw.axis % layer.output_rank

    def compute(indices: Tensor, values: Tensor, depth: Tensor) -> Tensor:
        classes = torch.arange(int(depth), device=indices.device)
        hot = (indices.unsqueeze(-1) == classes).movedim(-1, axis)
        return torch.where(hot, values[1], values[0])

    return compute
