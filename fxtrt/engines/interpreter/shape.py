"""Execute layers that move elements or read sizes, such as SHUFFLE, CONCATENATION and SHAPE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    dims,
    layer,
)


@layer("SHUFFLE", "IShuffleLayer")
def shuffle(layer: Layer) -> Compute:
    raw = layer.raw
    # TensorRT pads permutations to its largest rank.
    first = tuple(raw.first_transpose)[: layer.rank()]
    second = tuple(raw.second_transpose)[: layer.output_rank]
    zero_copies = raw.zero_is_placeholder
    static = None if layer.has(1) else _static_sizes(layer)

    def compute(x: Tensor, dynamic: Tensor | None = None) -> Tensor:
        x = x.permute(first)
        sizes = static if dynamic is None else dynamic.tolist()
        if sizes is not None:
            if zero_copies:
                sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
            x = x.reshape(sizes)
        return x.permute(second)

    return compute


def _static_sizes(layer: Layer) -> tuple[int, ...] | None:
    """Return the sizes to reshape to, or None if the layer only transposes."""
    sizes = dims(layer.raw.reshape_dims)
    return None if sizes == () and layer.output_rank > 0 else sizes


@layer("SQUEEZE", "ISqueezeLayer")
def squeeze(layer: Layer) -> Compute:
    unit = tuple(i for i, size in enumerate(layer.raw.get_input(0).shape) if size == 1)

    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        removed = unit if axes is None else tuple(axes.tolist())
        if any(x.shape[axis] != 1 for axis in removed):
            raise ValueError(f"axes {removed} are not all of size 1")
        return x.squeeze(removed)

    return compute


@layer("UNSQUEEZE", "IUnsqueezeLayer")
def unsqueeze(layer: Layer) -> Compute:
    rank = layer.output_rank

    def compute(x: Tensor, axes: Tensor) -> Tensor:
        for axis in sorted(axis % rank for axis in axes.reshape(-1).tolist()):
            x = x.unsqueeze(axis)
        return x

    return compute


@layer("CONCATENATION", "IConcatenationLayer")
def concatenation(layer: Layer) -> Compute:
    axis = layer.raw.axis
    return lambda *tensors: torch.cat(tensors, axis)


@layer("SHAPE", "IShapeLayer")
def shape(layer: Layer) -> Compute:
    dtype = layer.output_dtype()
    return lambda x: torch.tensor(x.shape, dtype=dtype, device=x.device)


@layer("PADDING", "IPaddingLayer")
def padding(layer: Layer) -> Compute:
    pre, post = layer.raw.pre_padding_nd, layer.raw.post_padding_nd
    counts = [n for pair in reversed(list(zip(pre, post, strict=True))) for n in pair]
    return lambda x: F.pad(x, counts)


@layer("REVERSE_SEQUENCE", "IReverseSequenceLayer")
def reverse_sequence(layer: Layer) -> Compute:
    batch_axis, axis = layer.raw.batch_axis, layer.raw.sequence_axis

    def compute(x: Tensor, lengths: Tensor) -> Tensor:
        x = x.movedim((batch_axis, axis), (0, 1))
        rows = [
            torch.cat([row[:length].flip(0), row[length:]])
            for row, length in zip(x, lengths.tolist(), strict=True)
        ]
        return torch.stack(rows).movedim((0, 1), (batch_axis, axis))

    return compute


@layer("FILL", "IFillLayer")
def fill(layer: Layer) -> Compute:
    raw = layer.raw
    if raw.operation.name != "LINSPACE":
        raise NotImplementedError(f"{raw.operation.name} has no defined values")
    dtype = layer.output_dtype()
    static = None if layer.has(0) else tuple(raw.shape)
    number = float if dtype.is_floating_point else int
    if not layer.has(1):
        layer.bind(1, torch.tensor(number(raw.alpha), dtype=dtype))
    if not layer.has(2):
        layer.bind(2, torch.tensor([number(raw.beta)], dtype=dtype))

    def compute(sizes: Tensor | None, start: Tensor, delta: Tensor) -> Tensor:
        return _linspace(static or () if sizes is None else sizes.tolist(), start, delta, dtype)

    return compute


def _linspace(sizes: Sequence[int], start: Tensor, delta: Tensor, dtype: torch.dtype) -> Tensor:
    """Return start plus, summed over the axes, index * delta[axis]."""
    result = start.to(dtype).reshape([1] * len(sizes))
    for axis, (size, step) in enumerate(zip(sizes, delta.reshape(-1), strict=True)):
        ramp = torch.arange(size, device=start.device).to(dtype) * step.to(dtype)
        result = result + ramp.reshape([-1 if i == axis else 1 for i in range(len(sizes))])
    return result
